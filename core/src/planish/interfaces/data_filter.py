"""DataFilter: scores clips, and decides from scores alone which to keep."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
    """Whether to keep a clip, and why not. Truthy if it is kept."""

    keep: bool
    reason: str = ""

    def __bool__(self) -> bool:
        """Return ``keep``."""
        return self.keep


class DataFilter(Plugin):
    """Scores clips and decides on the scores; the two are apart, so that thresholds change without recomputing."""

    interface_version: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]]
    """How to score: models, sampling, sizes. Part of a stored score's identity."""
    Policy: ClassVar[type[PluginConfig]]
    """How to decide: thresholds. Never part of a score's identity."""
    Columns: ClassVar[type[Row]]
    """Type of the rows that :meth:`score` returns."""
    metric_version: ClassVar[int] = 1
    """Raised when the same input may give other scores, so that stored ones are recomputed."""

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
