"""Cutting without looking: a video as one clip, or in windows of equal length."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

from planish.errors import ConfigError
from planish.interfaces import Clip

from planish_egovid.clips.frame_rate import to_frame
from planish_egovid.clips.segmenter import Source


class WholeSegmenter:
    """Leaves a video as it is."""

    def clips(self, source: Source) -> list[Clip]:
        """Return the whole file as one clip, under its path."""
        return [Clip(source.path, source.path, extra={} if source.stream is None else {"stream": source.stream})]


class WindowSegmenter:
    """Cuts a video into windows of equal length."""

    def __init__(self, *, length_s: float = 4.0, stride_s: float | None = None, rest: Literal["drop", "keep"] = "drop"):
        """Create the segmenter.

        Args:
            length_s: Seconds of a window.
            stride_s: Seconds from the start of a window to that of the next; None for windows side by side.
            rest: Whether the end of the video that fills no window is dropped or becomes a shorter clip.

        Raises:
            ConfigError: A length is not above 0.
        """
        for name, value in (("length_s", length_s), ("stride_s", stride_s)):
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}; expected more than 0")
        self._length_s, self._stride_s, self._rest = length_s, stride_s or length_s, rest

    def clips(self, source: Source) -> list[Clip]:
        """Return the windows."""
        length = max(1, to_frame(self._length_s, source.fps))
        # Each start is rounded by itself: a rounded stride would drift away from the seconds asked for.
        stride = max(Fraction(self._stride_s) * source.fps, Fraction(1))
        count = max(0, math.floor((source.frames - length) / stride + 1))
        starts = [math.floor(number * stride + Fraction(1, 2)) for number in range(count)]
        found = [source.clip(start, start + length) for start in starts if start + length <= source.frames]
        covered = starts[len(found) - 1] + length if found else 0
        if self._rest == "keep" and covered < source.frames:
            found.append(source.clip(covered, source.frames))
        return found
