"""DataFilter: scores clips, and decides from scores alone which to keep."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from planish.config import Config as PluginConfig
from planish.interfaces.plugin import Plugin


@dataclass(frozen=True)
class Clip:
    """A piece of a media file.

    Attributes:
        id: Unique among the clips of a run, and stable from run to run.
        path: File that holds the clip.
        start_s: Start in seconds from the file's beginning.
        end_s: End in seconds, or None for the file's end.
        text: What is said to happen in it, or None.
        extra: What else is known, such as the path of an IMU recording.
    """

    id: str
    path: str
    start_s: float = 0.0
    end_s: float | None = None
    text: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Row(BaseModel):
    """One clip's scores. A filter derives its own row type; each field says its unit in the description."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip_id: str = Field(description="identifier of the clip")
    error: str | None = Field(None, description="why the clip could not be scored, or null")


@dataclass(frozen=True)
class Decision:
    """Whether to keep a clip, and why not. Truthy if it is kept.

    Attributes:
        keep: Whether the clip is kept.
        reason: Why not, for a person; empty if it is kept.
        rules: Names of all the rules that reject the clip, the one that ``reason`` is about first; a funnel report
            counts by them. A filter that has no named rules leaves this empty and is counted by reason.
    """

    keep: bool
    reason: str = ""
    rules: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return ``keep``."""
        return self.keep


@dataclass(frozen=True)
class Illustration:
    """A picture of a clip for the report page.

    Attributes:
        title: What it shows, such as "Optical flow".
        data: The picture, encoded.
        media_type: Such as ``"image/jpeg"``, ``"image/png"`` or ``"image/svg+xml"``.
        caption: One sentence below it.
    """

    title: str
    data: bytes
    media_type: str = "image/jpeg"
    caption: str = ""


@dataclass
class ClipWork:
    """A clip on its way through the stages of a filter.

    Attributes:
        clip: The clip.
        values: Column -> value, as far as earlier stages have got.
        payload: Arrays that later stages need, such as the frames that a model looks at; dropped at the end. Between
            machines, these are what travels: keep them small.
        error: Why the clip cannot be scored; later stages leave such a clip alone.
    """

    clip: Clip
    values: dict[str, Any] = field(default_factory=dict)
    payload: dict[str, np.ndarray] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Stage:
    """One step of scoring, with what it needs to run.

    An engine runs the stages of a filter one after the other, each in as many workers as fit the machine or cluster.

    Attributes:
        name: Such as ``"decode"`` or ``"clip"``; unique within the filter.
        run: Takes a batch of works and returns them, in order, with more values. Never raises for a clip that cannot
            be scored: sets its ``error``.
        cpus: Processor cores that one worker uses.
        gpus: GPUs that one worker uses; a fraction lets workers share one.
        batch_size: Clips handed over at a time.
    """

    name: str
    run: Callable[[list[ClipWork]], list[ClipWork]]
    cpus: float = 1.0
    gpus: float = 0.0
    batch_size: int = 16


class DataFilter(Plugin):
    """Scores clips and decides on the scores; the two are apart, so that thresholds change without recomputing."""

    interface_version: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]]
    """How to score: models, sampling, sizes. Part of a stored score's identity, but for fields that are declared with
    ``json_schema_extra={"decides_scores": False}``, such as a batch size."""
    Policy: ClassVar[type[PluginConfig]]
    """How to decide: thresholds. Never part of a score's identity."""
    Columns: ClassVar[type[Row]]
    """Type of the rows that :meth:`score` returns."""
    metric_version: ClassVar[int] = 1
    """Raised when the same input may give other scores, so that stored ones are recomputed."""
    suffixes: ClassVar[tuple[str, ...]] = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm")
    """Names of files that a folder is searched for, in lower case."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name -> values of ``Policy`` that belong together."""

    @abstractmethod
    def score(self, clips: Sequence[Clip]) -> list[Row]:
        """Return one row of type ``Columns`` for each clip, in order. Deterministic.

        A clip that cannot be scored gets a row with ``error`` set; it never raises and never leaves a gap.
        """

    @abstractmethod
    def decide(self, row: Row, policy: PluginConfig | None = None) -> Decision:
        """Decide from a row alone. A row with an error is rejected with that error as its reason.

        Args:
            row: What :meth:`score` returned, possibly read back from a file.
            policy: Thresholds; None for the defaults of ``Policy``.
        """

    def stages(self) -> list[Stage]:
        """Return the steps of :meth:`score`, for engines that spread them over workers.

        One step by default. Run one after the other over the same clips they give the rows of :meth:`score`, whatever
        the batches are.
        """
        return [Stage("score", self._score_works)]

    def clips_of(self, path: Path) -> list[Clip]:
        """Return the clips of a media file; the whole file as one by default.

        Raises:
            DataError: The file cannot be cut into clips. The engine then scores it whole, which gives it an error row.
        """
        return [Clip(str(path), str(path))]

    def settle(self, policy: PluginConfig, rows: Iterable[Row]) -> PluginConfig:
        """Return ``policy`` with everything that depends on the whole data set worked out, such as quantiles.

        By default a policy depends on nothing and is returned as it is.
        """
        return policy

    def illustrate(self, clip: Clip, row: Row) -> list[Illustration]:
        """Return pictures of a clip for the report page; none by default. May read the clip's file."""
        return []

    def _score_works(self, works: list[ClipWork]) -> list[ClipWork]:
        rows = self.score([work.clip for work in works])
        return [
            ClipWork(work.clip, row.model_dump(exclude={"clip_id", "error"}), error=row.error)
            for work, row in zip(works, rows, strict=True)
        ]

    def row_of(self, work: ClipWork) -> Row:
        """Return the row of a clip that has passed all stages."""
        values = {} if work.error is not None else work.values
        return self.Columns(clip_id=work.clip.id, error=work.error, **values)


class StagedFilter(DataFilter):
    """A data filter that is written as stages, such as decoding on processors and a model on a GPU."""

    @abstractmethod
    def stages(self) -> list[Stage]:
        """Return the steps of scoring, in order."""

    def score(self, clips: Sequence[Clip]) -> list[Row]:
        """Run all stages over the clips, in this process."""
        works = [ClipWork(clip) for clip in clips]
        for stage in self.stages():
            for start in range(0, len(works), stage.batch_size):
                works[start : start + stage.batch_size] = stage.run(works[start : start + stage.batch_size])
        return [self.row_of(work) for work in works]
