"""Data filters over binary PPM pictures, some of them with vices that engines must survive."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from planish.config import Config as PluginConfig
from planish.errors import DataError, UnsupportedError
from planish.interfaces import Clip, ClipWork, DataFilter, Decision, Row, Stage, StagedFilter
from pydantic import Field


def write_ppm(path: Path, seed: int, width: int = 6, height: int = 4) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6 %d %d 255\n" % (width, height) + pixels.tobytes())
    return path


def read_ppm(path: str) -> np.ndarray:
    header, _, pixels = Path(path).read_bytes().partition(b"\n")
    words = header.split()
    if len(words) != 4 or words[0] != b"P6":
        raise ValueError("not a binary PPM file")
    width, height = int(words[1]), int(words[2])
    if len(pixels) < 3 * width * height:
        raise ValueError(f"cut short: {len(pixels)} of {3 * width * height} bytes")
    return np.frombuffer(pixels, dtype=np.uint8)[: 3 * width * height].reshape(height, width, 3)


class Columns(Row):
    brightness: float | None = Field(None, description="mean value, 0 to 1")
    channels: list[float] | None = Field(None, description="mean of red, green and blue, 0 to 1")
    side: int | None = Field(None, description="shorter side in pixels")
    shape: dict[str, int] | None = Field(None, description="width and height in pixels")


class Options(PluginConfig):
    gain: float = Field(1.0, gt=0, description="factor of all brightness")


class Thresholds(PluginConfig):
    min_brightness: float = Field(0.4, ge=0, description="darker pictures are rejected, 0 to 1")


class Pictures(DataFilter):
    """Brightness of pictures. A clip whose text names a vice has it."""

    name = "pictures"
    summary = "brightness of PPM pictures"
    Config = Options
    Policy = Thresholds
    Columns = Columns
    suffixes = (".ppm",)
    presets: ClassVar = {"dark": {"min_brightness": 0.1}}

    def __init__(self, config: Any = None, **options: Any) -> None:
        super().__init__(config, **options)
        if os.environ.get("DIE_AT_START", str(os.getpid())) != str(os.getpid()):
            os.write(2, b"no such driver\n")
            os._exit(5)

    def score(self, clips):
        return [self.score_one(clip) for clip in clips]

    def score_one(self, clip: Clip) -> Row:
        indulge(clip)
        try:
            picture = read_ppm(clip.path)
        except (OSError, ValueError) as error:
            return self.Columns(clip_id=clip.id, error=str(error))
        return self.Columns(clip_id=clip.id, **measure(picture, self.config.gain))

    def decide(self, row: Any, policy: Any = None) -> Decision:
        policy = policy or self.Policy()
        if row.error is not None:
            return Decision(False, row.error)
        if row.brightness < policy.min_brightness:
            return Decision(False, "too dark", ("min_brightness",))
        return Decision(True)

    def clips_of(self, path: Path) -> list[Clip]:
        if path.stem.startswith("uncuttable"):
            raise DataError(f"{path} cannot be cut")
        if path.stem.startswith("pair"):
            return [Clip(f"{path.stem}_{n}", str(path), float(n), n + 1.0) for n in range(2)]
        return super().clips_of(path)


def measure(picture: np.ndarray, gain: float) -> dict[str, Any]:
    channels = [float(c) * gain / 255 for c in picture.mean((0, 1))]
    height, width = picture.shape[:2]
    return {
        "brightness": float(picture.mean()) * gain / 255,
        "channels": channels,
        "side": min(height, width),
        "shape": {"width": width, "height": height},
    }


def indulge(clip: Clip) -> None:
    """Do what the clip's text names."""
    vice, _, argument = (clip.text or "").partition(":")
    if vice == "die":
        os.kill(os.getpid(), signal.Signals[argument])
    elif vice == "die once":
        marker = Path(argument)
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif vice == "no model":
        raise UnsupportedError("the model cannot be loaded; pip install a-model")
    elif vice == "exit":
        os._exit(int(argument))
    elif vice == "sleep":
        time.sleep(float(argument))
    elif vice == "raise":
        raise RuntimeError(argument)
    elif vice == "tell":
        if parent_process() is not None:
            Path(argument, str(os.getpid())).touch()
            time.sleep(0.02)
    elif vice == "start":
        child = subprocess.Popen(["sleep", "60"])
        Path(argument).write_text(str(child.pid))
        child.wait()
    elif vice == "print":
        os.write(1, b"noise on stdout\n")
        os.write(2, b"noise on stderr\n")
        print("noise of python", file=sys.stderr)
    elif vice == "environment":
        raise RuntimeError(os.environ.get(argument))
    elif vice == "warn":
        logging.getLogger("pictures").warning("no model; %s is null", argument)


class Staged(StagedFilter):
    """The same measurement in two stages; the picture travels between them."""

    name = "staged-pictures"
    summary = "brightness of PPM pictures, in two stages"
    Config = Options
    Policy = Thresholds
    Columns = Columns
    suffixes = (".ppm",)
    decide = Pictures.decide

    def stages(self) -> list[Stage]:
        return [Stage("read", self._read, batch_size=3), Stage("measure", self._measure, batch_size=2)]

    def _read(self, works: list[ClipWork]) -> list[ClipWork]:
        for work in works:
            indulge(work.clip)
            try:
                work.payload["picture"] = read_ppm(work.clip.path)
            except (OSError, ValueError) as error:
                work.error = str(error)
        return works

    def _measure(self, works: list[ClipWork]) -> list[ClipWork]:
        for work in works:
            if work.error is None:
                work.values |= measure(work.payload["picture"], self.config.gain)
        return works


class Unbuildable(Pictures):
    name = "unbuildable"

    def __init__(self, config: Any = None, **options: Any) -> None:
        super().__init__(config, **options)
        if os.environ.get("UNBUILDABLE_PARENT") != str(os.getpid()):
            raise DataError("weights.bin is missing; fetch it")
