"""Data filters that try an engine out: quick to score, and they misbehave where a clip asks for it.

A clip's ``extra`` may hold ``"misbehave": "die" | "hang" | "raise"``, and ``"hang_s"``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from planish.config import Config as PluginConfig
from planish.interfaces.data_filter import Clip, ClipWork, DataFilter, Decision, Row, Stage, StagedFilter


def misbehave(clip: Clip) -> None:
    """Do what a clip asks for: end this process, sleep, or raise; nothing for an ordinary clip."""
    how = clip.extra.get("misbehave")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(float(clip.extra["hang_s"]))
    if how == "raise":
        raise RuntimeError("the clip asked for it")


def read_bytes(clip: Clip) -> np.ndarray:
    """Return a file's bytes, uint8 [length].

    Raises:
        OSError: It cannot be read.
    """
    return np.frombuffer(Path(clip.path).read_bytes(), dtype=np.uint8)


class ProbeConfig(PluginConfig):
    """How a probe scores."""

    scale: float = Field(1.0, gt=0, description="factor of the mean")


class _Probe(DataFilter):
    """What both probes share: mean and spread of a file's bytes."""

    Config = ProbeConfig
    config: ProbeConfig

    class Policy(PluginConfig):
        """How to decide."""

        min_mean: float = Field(0.0, ge=0, description="smaller means are rejected")

    class Columns(Row):
        """Scores."""

        mean: float | None = Field(None, description="mean of the bytes, times the scale")
        spread: float | None = Field(None, description="standard deviation of the bytes")
        first: list[int] | None = Field(None, description="the first bytes, at most four")

    def decide(self, row: Any, policy: Any = None) -> Decision:
        """Compare the mean with its threshold."""
        policy = policy or self.Policy()
        if row.error is not None:
            return Decision(False, row.error)
        if row.mean < policy.min_mean:
            return Decision(False, f"mean {row.mean} is below {policy.min_mean}", ("mean",))
        return Decision(True)

    def _measure(self, data: np.ndarray) -> dict[str, Any]:
        return {
            "mean": float(data.mean()) * self.config.scale,
            "spread": float(data.std()),
            "first": data[:4].tolist(),
        }


class Probe(_Probe):
    """Scores in one stage."""

    name = "probe"
    summary = "mean and spread of a file's bytes, to try engines out"

    def score(self, clips: Sequence[Clip]) -> list[Row]:
        """Return one row per clip, in order."""
        return [self._score_one(clip) for clip in clips]

    def _score_one(self, clip: Clip) -> Row:
        misbehave(clip)
        try:
            return self.Columns(clip_id=clip.id, **self._measure(read_bytes(clip)))
        except OSError as error:
            return self.Columns(clip_id=clip.id, error=str(error))


class StagedProbe(_Probe, StagedFilter):
    """Scores in two stages, the second of which works on what the first read, and misbehaves."""

    name = "probe-staged"
    summary = "mean and spread of a file's bytes in two stages, to try engines out"

    def stages(self) -> list[Stage]:
        """Return the stages: reading, then measuring."""
        return [Stage("read", self._read, batch_size=4), Stage("measure", self._measure_all, cpus=0.5, batch_size=3)]

    def _read(self, works: list[ClipWork]) -> list[ClipWork]:
        for work in works:
            try:
                work.payload["bytes"] = read_bytes(work.clip)
            except OSError as error:
                work.error = str(error)
        return works

    def _measure_all(self, works: list[ClipWork]) -> list[ClipWork]:
        for work in works:
            if work.error is None:
                misbehave(work.clip)
                work.values.update(self._measure(work.payload["bytes"]))
        return works
