"""ClipJob: a clip while it is decoded: what is wanted of it, what there is so far, and whether that is all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planish.interfaces import Clip

from planish_egovid.video.clip_span import clip_span
from planish_egovid.video.config import DecodeConfig
from planish_egovid.video.errors import ClipDecodeError
from planish_egovid.video.frame_pass import FramePass
from planish_egovid.video.picture import Look, Pictures
from planish_egovid.video.request import FrameRequest, Frames, VideoInfo
from planish_egovid.video.video_file import VideoFile
from planish_egovid.video.view import ClipView, FrameTally

Requests = Callable[[Clip, VideoInfo, float], Sequence[FrameRequest]]
"""``(clip, video, duration_s) -> requests``: what is wanted of a clip."""

_MISSING_FRAMES = 0.75
"""A stream that ends this many frames early is truncated."""
_GAPS = 0.05
"""Share of its frames that an otherwise even stream may lack without being incomplete."""


class DamagedFrames(ClipDecodeError):
    """Wanted frames did not come out of the decoder."""


@dataclass(eq=False)
class ClipJob:
    """A clip on its way: what is wanted, and what there is of it so far."""

    clip: Clip
    start: int
    stop: int
    duration_s: float
    requests: list[FrameRequest]
    tolerates_damage: bool
    looks: dict[int, set[Look]]
    shown: dict[int, int] = field(default_factory=dict)
    images: dict[tuple[Look, int], NDArray[np.uint8]] = field(default_factory=dict)

    @classmethod
    def plan(cls, clip: Clip, file: VideoFile, requests: Requests, config: DecodeConfig) -> ClipJob:
        """Return what is to be done for a clip of an open file.

        Raises:
            ClipRangeError: Its start and end are no span of the file.
        """
        start_s, end_s = clip_span(clip, file, config)
        duration_s = end_s - start_s
        wanted = list(dict.fromkeys(requests(clip, file.info, duration_s)))
        job = cls(clip, file.boundary(start_s), file.boundary(end_s), duration_s, wanted, config.damaged == "score", {})
        for request in wanted:
            for tick in job.ticks(request, file):
                job.looks.setdefault(tick, set()).add(Look.of(request))
        return job

    def ticks(self, request: FrameRequest, file: VideoFile) -> list[int]:
        """Return the ticks of a request's times, inside the clip."""
        last = max(self.stop - 1, self.start)
        return [min(max(file.tick(self.clip.start_s + t), self.start), last) for t in request.times_s]

    def take(self, frame: Any, shown: int, ticks: Sequence[int], converted: SharedPictures) -> None:
        """Keep what this clip wants of a frame."""
        for tick in ticks:
            for look in self.looks.get(tick, ()):
                self.shown[tick] = shown
                self.images[look, shown] = converted(frame, look)

    def view(self, file: VideoFile, pictures: Pictures, done: FramePass) -> ClipView:
        """Return the clip with its frames.

        Raises:
            ClipDecodeError: The file ends before the clip does, or a wanted frame is damaged beyond recognition.
        """
        inside = done.stamps[bisect_left(done.stamps, self.start) : bisect_left(done.stamps, self.stop)]
        expected = max(round(self.duration_s * file.info.fps), 1)
        damage = {at: said for at, said in done.damage.items() if self.start <= at < self.stop}
        tally = FrameTally(expected, len(inside), len(damage))
        self._require_end(file, done, tally)
        self._require_frames(file, done, damage, tally)
        if not file.is_indexed:
            _require_no_gaps(inside, file.frame_ticks)
        uneven = _is_uneven(inside)
        decoded = {request: self._frames(request, file, pictures) for request in self.requests}
        return ClipView(self.clip, replace(file.info, variable_rate=uneven), self.duration_s, decoded, tally)

    def _require_end(self, file: VideoFile, done: FramePass, tally: FrameTally) -> None:
        upto = bisect_left(done.stamps, self.stop)
        end = done.ends[done.stamps[upto - 1]] if upto else file.zero
        if self.stop - end >= _MISSING_FRAMES * file.frame_ticks:
            expected = max(tally.expected, tally.actual + 1)
            why = "" if done.cut_short in ("", "end of file") else f" ({done.cut_short})"
            raise ClipDecodeError(f"truncated: {tally.actual}/{expected} frames{why}")

    def _require_frames(self, file: VideoFile, done: FramePass, damage: dict[int, str], tally: FrameTally) -> None:
        lost = 0
        for tick in self.looks:
            shown = self.shown.get(tick)
            due = done.stamps[max(bisect_right(done.stamps, tick), 1) - 1] if done.stamps else tick
            lost += shown is None or due - shown >= _MISSING_FRAMES * file.frame_ticks
        if lost:
            why = next(iter(damage.values()), "the decoder gave none")
            raise DamagedFrames(f"damaged: {lost} of {len(self.looks)} frames cannot be decoded ({why})")
        if damage and not self.tolerates_damage:
            raise ClipDecodeError(
                f"damaged: {len(damage)} of {tally.actual} frames have errors ({next(iter(damage.values()))})"
            )

    def _frames(self, request: FrameRequest, file: VideoFile, pictures: Pictures) -> Frames:
        look = Look.of(request)
        shown = [self.shown[tick] for tick in self.ticks(request, file)]
        images = [self.images[look, at] for at in shown]
        stacked = np.stack(images) if images else np.zeros((0, *pictures.shape(look)), np.uint8)
        times = np.array([file.seconds(at) - self.clip.start_s for at in shown], np.float64)
        return Frames(stacked, times, pictures.scale(look))


class SharedPictures:
    """The pictures of the newest frame, for clips that share it."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._frame: Any = None
        self._images: dict[Look, NDArray[np.uint8]] = {}

    def __call__(self, frame: Any, look: Look) -> NDArray[np.uint8]:
        """Return a picture of ``frame``, the newest one."""
        if frame is not self._frame:
            self._frame, self._images = frame, {}
        if look not in self._images:
            self._images[look] = self._pictures.convert(frame, look)
        return self._images[look]


def _require_no_gaps(stamps: Sequence[int], frame_ticks: float) -> None:
    """Refuse an even stream with gaps: where a container has no index, lost frames leave no other trace."""
    gaps = [b - a for a, b in pairwise(stamps)]
    usual = max(median(gaps) if len(gaps) >= 4 else frame_ticks, 1)
    even = sum(abs(gap - usual) <= 0.1 * usual + 1 for gap in gaps)
    lost = sum(max(round(gap / usual) - 1, 0) for gap in gaps)
    if (even >= 0.8 * len(gaps) or len(gaps) < 4) and lost > _GAPS * (len(stamps) + lost):
        raise ClipDecodeError(f"incomplete: {len(stamps)}/{len(stamps) + lost} frames; there are gaps between them")


def _is_uneven(stamps: Sequence[int]) -> bool:
    gaps = [b - a for a, b in pairwise(stamps)]
    if len(gaps) < 2:
        return False
    usual = median(gaps)
    return max(abs(gap - usual) for gap in gaps) > 0.1 * usual + 1
