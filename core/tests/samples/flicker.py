"""Sample data filter in two stages: how much the light changes in a stream of binary PPM pictures, one a second."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from planish import DataError
from planish.config import Config as PluginConfig
from planish.interfaces import Clip, ClipWork, Decision, Illustration, Row, Stage, StagedFilter
from pydantic import Field


def read_stream(path: Path) -> np.ndarray:
    """Return the pictures of a file of PPM pictures of one size, uint8 [pictures, height, width, 3].

    Raises:
        ValueError: It is no such file, or it is cut short.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    header = data.split(maxsplit=4)
    if len(header) < 5 or header[0] != b"P6" or header[3] != b"255":
        raise ValueError("not a stream of binary PPM pictures")
    width, height = int(header[1]), int(header[2])
    head = len(b"P6\n%d %d\n255\n" % (width, height))
    each = head + 3 * width * height
    if len(data) % each:
        raise ValueError(f"cut short: {len(data)} bytes are no whole number of pictures of {each}")
    pictures = np.frombuffer(data, dtype=np.uint8).reshape(-1, each)[:, head:]
    return pictures.reshape(-1, height, width, 3)


def write_stream(path: Path, pictures: np.ndarray) -> None:
    """Write uint8 [pictures, height, width, 3] as a stream of PPM pictures."""
    _, height, width, _ = pictures.shape
    path.write_bytes(b"".join(b"P6\n%d %d\n255\n" % (width, height) + p.tobytes() for p in pictures))


def png(picture: np.ndarray) -> bytes:
    """Return uint8 [height, width, 3] as a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = picture.shape
    lines = b"".join(b"\0" + line.tobytes() for line in picture)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


class Bounds(PluginConfig):
    """Bounds of a score."""

    min: float | None = Field(None, description="smallest value that is kept")
    max: float | None = Field(None, description="largest value that is kept")
    max_quantile: float | None = Field(None, ge=0, le=1, description="share of the data that is kept")


class Flicker(StagedFilter):
    """Mean change of luminance from picture to picture."""

    name = "sample-flicker"
    summary = "change of light in streams of PPM pictures"
    suffixes = (".ppms",)
    presets: ClassVar = {"steady": {"flicker": {"max_quantile": 0.5}}, "any": {"luminance": {}, "flicker": {}}}

    class Config(PluginConfig):
        """How to score."""

        window_s: int = Field(4, ge=1, description="length of a clip in seconds")

    class Policy(PluginConfig):
        """How to decide."""

        luminance: Bounds = Field(Bounds(min=0.1, max=0.95), description="mean luminance, 0 to 1")
        flicker: Bounds = Field(Bounds(max=0.3), description="mean change of luminance, 0 to 1")

    class Columns(Row):
        """Scores."""

        luminance: float | None = Field(None, description="mean luminance, 0 to 1")
        flicker: float | None = Field(None, description="mean change of luminance, 0 to 1; null for a single picture")
        levels: list[float] | None = Field(None, description="luminance of each picture, 0 to 1")
        pictures: int | None = Field(None, description="number of pictures")
        backend: str | None = Field(None, description="what measured it")

    def clips_of(self, path: Path) -> list[Clip]:
        try:
            pictures = len(read_stream(path))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}") from None
        starts = range(0, pictures, self.config.window_s)
        ends = [min(start + self.config.window_s, pictures) for start in starts]
        return [Clip(f"{path}@{a}-{b}", str(path), a, b) for a, b in zip(starts, ends, strict=True)]

    def stages(self) -> list[Stage]:
        return [Stage("read", self._read, batch_size=2), Stage("compare", self._compare, cpus=0.5, batch_size=3)]

    def _read(self, works: list[ClipWork]) -> list[ClipWork]:
        for work in works:
            try:
                pictures = read_stream(Path(work.clip.path))[self._span(work.clip)]
                levels = (pictures @ np.array([0.299, 0.587, 0.114])).mean(axis=(1, 2)) / 255
                if not len(levels):
                    raise ValueError(f"no picture from {work.clip.start_s} s on")
            except (OSError, ValueError) as error:
                work.error = str(error)
                continue
            work.values["pictures"] = len(levels)
            work.payload["levels"] = levels
        return works

    def _compare(self, works: list[ClipWork]) -> list[ClipWork]:
        for work in works:
            if work.error is not None:
                continue
            levels = work.payload["levels"]
            work.values["levels"] = levels.tolist()
            work.values["luminance"] = float(levels.mean())
            work.values["flicker"] = float(np.abs(np.diff(levels)).mean()) if len(levels) > 1 else None
            work.values["backend"] = "numpy"
        return works

    def settle(self, policy: Any, rows: Iterable[Row]) -> Any:
        if all(getattr(policy, name).max_quantile is None for name in type(policy).model_fields):
            return policy
        kept = list(rows)
        changed = {}
        for name in type(policy).model_fields:
            bounds = getattr(policy, name)
            values = sorted(v for v in (getattr(row, name) for row in kept) if v is not None)
            if bounds.max_quantile is not None:
                limit = float(np.quantile(values, bounds.max_quantile)) if values else None
                changed[name] = Bounds(min=bounds.min, max=limit)
        return policy.model_copy(update=changed)

    def decide(self, row: Any, policy: Any = None) -> Decision:
        policy = policy or self.Policy()
        if row.error is not None:
            return Decision(False, row.error)
        reasons = {}
        for name in type(policy).model_fields:
            value, bounds = getattr(row, name), getattr(policy, name)
            if value is not None and bounds.min is not None and value < bounds.min:
                reasons[f"{name}.min"] = f"{name} {value:.3f} is below {bounds.min}"
            elif value is not None and bounds.max is not None and value > bounds.max:
                reasons[f"{name}.max"] = f"{name} {value:.3f} is above {bounds.max}"
        return Decision(not reasons, next(iter(reasons.values()), ""), tuple(reasons))

    def illustrate(self, clip: Clip, row: Row) -> list[Illustration]:
        pictures = read_stream(Path(clip.path))[self._span(clip)]
        return [Illustration("First picture", png(pictures[0]), "image/png", f"of {len(pictures)}")]

    def _span(self, clip: Clip) -> slice:
        return slice(int(clip.start_s), None if clip.end_s is None else int(clip.end_s))


def flickering(levels: Sequence[int], side: int = 4) -> np.ndarray:
    """Return grey pictures of these levels, uint8 [pictures, side, side, 3]."""
    return np.array(levels, dtype=np.uint8)[:, None, None, None].repeat(side, 1).repeat(side, 2).repeat(3, 3)
