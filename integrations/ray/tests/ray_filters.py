"""Data filters for the tests: what they do to a clip is written in the clip's text."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from planish.config import Config
from planish.errors import UnsupportedError
from planish.interfaces.data_filter import Clip, DataFilter, Decision, Row, Stage, StagedFilter
from pydantic import Field


class Numbers(Row):
    length: int | None = Field(None, description="characters of the id")
    share: float | None = Field(None, description="a float that has no short decimal")
    parts: list[float] | None = Field(None, description="a few floats")
    pid: int | None = Field(None, description="process that measured")


class Options(Config):
    offset: int = Field(0, description="added to the length")
    gpus: float = Field(0.0, description="GPUs of the second stage")
    build_fails: bool = Field(False, description="whether the filter can be built only where the tests run")


def numbers(clip: Clip, offset: int) -> dict[str, object]:
    length = len(clip.id) + offset
    rng = np.random.default_rng(sum(clip.id.encode()))
    return {"length": length, "share": length / 7, "parts": [float(x) for x in rng.random(3)]}


def act(clip: Clip) -> None:
    """Do to this process what the clip says."""
    if clip.text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif clip.text == "kill the Ray worker":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    elif clip.text == "exit":
        os._exit(3)
    elif clip.text == "hang":
        time.sleep(600)
    elif clip.text == "raise":
        raise RuntimeError("this clip makes the stage raise")
    elif clip.text == "no model":
        raise UnsupportedError("the model cannot be loaded; pip install a-model")
    elif clip.text == "wait for a second process":
        folder = Path(clip.path)
        (folder / str(os.getpid())).touch()
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
    elif clip.text is not None and clip.text.startswith("meet "):
        (Path(clip.path) / clip.id).touch()
        while not (Path(clip.path) / clip.text.removeprefix("meet ")).exists():
            time.sleep(0.01)


class Counting(DataFilter):
    """One stage, made by the base class from score()."""

    name = "counting"
    summary = "counts the characters of ids"
    Config = Options
    Policy = Config
    Columns = Numbers

    def score(self, clips):
        rows = []
        for clip in clips:
            act(clip)
            if clip.text == "unreadable":
                rows.append(Numbers(clip_id=clip.id, error=f"cannot read {clip.path}"))
            else:
                rows.append(Numbers(clip_id=clip.id, **numbers(clip, self.config.offset)))
        return rows

    def decide(self, row, policy=None):
        return Decision(row.error is None, row.error or "")


class WhoDid(Counting):
    """Says which process measured a clip."""

    name = "who-did"

    def score(self, clips):
        return [row.model_copy(update={"pid": os.getpid()}) for row in super().score(clips)]


class Timed(Counting):
    """Takes its time, and says which process began and ended when with a clip."""

    name = "timed"

    def score(self, clips):
        rows = []
        for clip in clips:
            began = time.monotonic()
            time.sleep(0.25)
            rows.append(Numbers(clip_id=clip.id, parts=[began, time.monotonic()], pid=os.getpid()))
        return rows


class Fragile(Counting):
    """Can only be built by the process that runs the tests."""

    name = "fragile"

    def __init__(self, config=None, **options):
        super().__init__(config, **options)
        if os.environ.get("PLANISH_RAY_TEST_PROCESS") != str(os.getpid()):
            raise ModuleNotFoundError("No module named 'left_at_home'")


class Staged(StagedFilter):
    """Three stages; the middle one may ask for a GPU, gets arrays from the first, and takes larger batches."""

    name = "staged"
    summary = "three stages"
    Config = Options
    Policy = Config
    Columns = Numbers
    seen: ClassVar[list[int]] = []

    def stages(self):
        return [
            Stage("decode", self._decode, batch_size=4),
            Stage("model", self._model, gpus=self.config.gpus, batch_size=8),
            Stage("total", self._total, batch_size=5),
        ]

    def _decode(self, works):
        for work in works:
            act(work.clip)
            if work.clip.text == "unreadable":
                work.error = f"cannot read {work.clip.path}"
                continue
            work.values["length"] = len(work.clip.id) + self.config.offset
            work.payload["frames"] = np.full((2, 8, 8, 3), work.values["length"], np.uint8)
        return works

    def _model(self, works):
        for work in works:
            if work.error is not None:
                continue
            work.values["share"] = float(work.payload.pop("frames").astype(np.float64).mean() / 7)
        return works

    def _total(self, works):
        for work in works:
            if work.error is not None:
                continue
            work.values["parts"] = [work.values["share"] / 3] * 3
        return works

    def decide(self, row, policy=None):
        return Decision(row.error is None, row.error or "")


class Roomy(Staged):
    """Asks for so little that several workers of each stage fit on two cores."""

    name = "roomy"

    def stages(self):
        return [replace(stage, cpus=0.25, batch_size=1) for stage in super().stages()]


class Warning_(Counting):
    """Warns over every clip."""

    name = "warning"

    def score(self, clips):
        for _ in clips:
            logging.getLogger("ray_filters").warning("the model is not here")
        return super().score(clips)
