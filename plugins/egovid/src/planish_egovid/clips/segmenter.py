"""Segmenter: cuts a video into clips; and the options to choose one by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

from planish.config import Config
from planish.errors import DataError
from planish.interfaces import Clip
from pydantic import Field

from planish_egovid.clips.frame_rate import rational_fps, to_seconds
from planish_egovid.clips.ids import ClipId
from planish_egovid.video.request import VideoInfo


@dataclass(frozen=True)
class Narration:
    """What somebody said of a moment of a video.

    Attributes:
        time_s: Seconds from the video's start.
        text: What happens.
        extra: What else is known, such as noun and verb class.
    """

    time_s: float
    text: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A video to be cut.

    Attributes:
        path: Its file.
        fps: Frames a second.
        frames: Number of frames.
        narrations: Its narrations, in any order; empty if it has none.
        stream: Index of the video stream in the file; None for the main one.
    """

    path: str
    fps: Fraction
    frames: int
    narrations: tuple[Narration, ...] = ()
    stream: int | None = None

    @classmethod
    def of(
        cls, path: str | Path, video: VideoInfo, narrations: Sequence[Narration] = (), stream: int | None = None
    ) -> Source:
        """Return a probed video as a source.

        Raises:
            DataError: Its rate or its length is not known.
        """
        fps = rational_fps(video.fps)
        # The duration says what can be shown; the container's count includes frames that edit lists leave out.
        frames = video.frames if video.duration_s is None else int(Fraction(video.duration_s) * fps + Fraction(1, 2))
        if not frames:
            raise DataError(
                f"{path}: the container says neither frames nor duration; remux it, such as with ffmpeg -c copy"
            )
        return cls(str(path), fps, frames, tuple(narrations), stream)

    def clip(self, start: int, end: int, text: str | None = None, extra: dict[str, Any] | None = None) -> Clip:
        """Return the clip of frames ``start`` up to, not including, ``end``."""
        more = dict(extra or {})
        if self.stream is not None:
            more["stream"] = self.stream
        return Clip(
            str(ClipId(Path(self.path).stem, start, end)),
            self.path,
            to_seconds(start, self.fps),
            to_seconds(end, self.fps),
            text,
            more,
        )


class Segmenter(Protocol):
    """Cuts videos into clips."""

    def clips(self, source: Source) -> list[Clip]:
        """Return the clips of a video, each within it, by rising start.

        Raises:
            DataError: The video cannot be read, or lacks what is needed.
        """


class SegmentConfig(Config):
    """How videos are cut into clips. Ranges are whole frames and never reach beyond the video's end."""

    method: Literal["whole", "windows", "scenes", "pyscenedetect", "narrations"] = Field(
        "whole",
        description="whole: not at all; windows: of equal length; scenes: at cuts; pyscenedetect: at cuts that "
        "PySceneDetect finds (extra 'scenes'); narrations: around what is narrated",
    )
    length_s: float = Field(4.0, gt=0, description="windows, and narrations with policy 'fixed': seconds of a clip")
    stride_s: float | None = Field(
        None, gt=0, description="windows: seconds from the start of one to that of the next; null: length_s"
    )
    rest: Literal["drop", "keep"] = Field("drop", description="windows: what becomes of the shorter rest at the end")
    policy: Literal["egoclip", "fixed", "midpoint"] = Field(
        "egoclip",
        description="narrations: egoclip: time ± β/2α (arXiv 2206.01670); fixed: length_s around the time; midpoint: "
        "half way to the narrations before and after",
    )
    mean_gap_s: float | None = Field(
        None, gt=0, description="narrations, egoclip: α, mean over videos of their mean gap in seconds"
    )
    min_frames: int = Field(120, ge=1, description="scenes, narrations: shortest clip in frames")
    max_s: float = Field(10.0, gt=0, description="scenes, narrations: longest clip in seconds")


def make_segmenter(config: SegmentConfig | None = None) -> Segmenter:
    """Return the segmenter that options ask for; the whole file is one clip by default.

    Raises:
        UnsupportedError: PySceneDetect is asked for and not installed.
    """
    from planish_egovid.clips.narrations import NarrationSegmenter
    from planish_egovid.clips.scenes import PySceneDetectSegmenter, SceneSegmenter
    from planish_egovid.clips.windows import WholeSegmenter, WindowSegmenter

    c = config or SegmentConfig()
    if c.method == "windows":
        return WindowSegmenter(length_s=c.length_s, stride_s=c.stride_s, rest=c.rest)
    if c.method == "scenes":
        return SceneSegmenter(min_frames=c.min_frames, max_s=c.max_s)
    if c.method == "pyscenedetect":
        return PySceneDetectSegmenter(min_frames=c.min_frames, max_s=c.max_s)
    if c.method == "narrations":
        return NarrationSegmenter(
            c.policy, mean_gap_s=c.mean_gap_s, length_s=c.length_s, min_frames=c.min_frames, max_s=c.max_s
        )
    return WholeSegmenter()
