"""Axis: one aspect that clips are scored by. Each is a data filter of its own, and a part of the whole pipeline.

An axis never opens a file: it says which frames it needs, and measures them when they are there, so that the pipeline
decodes a clip once for all of its axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from planish.config import Config
from planish.interfaces import Clip, Illustration, Row, Stage

from planish_egovid.policy.rule import Rule
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView


class Axis(ABC):
    """One aspect of a clip.

    Attributes:
        name: Such as ``"motion"``; the stand-alone filter is called ``egovid-<name>``.
        summary: One line.
        Config: How to measure.
        Columns: The row type of the axis alone; all columns are nullable, because a clip may lack what they need.
        rules: What the default policy asks of the columns, in the order in which reasons are given.
        cost: Rough seconds a clip, to order the axes by.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Config: ClassVar[type[Config]]
    Columns: ClassVar[type[Row]]
    rules: ClassVar[tuple[Rule, ...]] = ()
    cost: ClassVar[float] = 0.1

    def __init__(self, config: Any) -> None:
        """Create the axis under a validated ``Config``. Heavy things are made at first use."""
        self.config = config

    @abstractmethod
    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        """Return the frames that :meth:`measure` will ask for."""

    @abstractmethod
    def measure(self, view: ClipView) -> dict[str, Any]:
        """Return column -> value on this machine's processors. Put what :meth:`stage` needs into ``view.payload``.

        A column that cannot be had is None, never 0.

        Raises:
            DataError: The clip as a whole is unusable; it becomes the row's error.
        """

    def stage(self) -> Stage | None:
        """Return a further stage, such as a model on a GPU, that turns payload into columns; None if there is none."""
        return None

    def illustrate(self, view: ClipView, row: Row) -> list[Illustration]:
        """Return pictures of what was measured; none by default."""
        return []
