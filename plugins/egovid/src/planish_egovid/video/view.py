"""A clip as the axes see it: its pixels, decoded once, and what axes compute for each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from planish.interfaces import Clip

from planish_egovid.video.request import FrameRequest, Frames, VideoInfo

T = TypeVar("T")


@dataclass(frozen=True)
class FrameTally:
    """Frames of a clip, counted.

    Attributes:
        expected: As many as the container promises.
        actual: As many as are in the file.
        damaged: Those at which the decoder reported an error; it guesses the missing parts of such pictures.
    """

    expected: int
    actual: int
    damaged: int = 0


@dataclass
class ClipView:
    """One clip while it is measured.

    Attributes:
        clip: The clip.
        video: Its stream.
        duration_s: Length of the clip in seconds, within the stream.
        decoded: The frames of every request that was made.
        tally: How many frames the clip has, and how they fared.
        payload: Arrays for stages that run elsewhere, such as the frames that a model looks at.
    """

    clip: Clip
    video: VideoInfo
    duration_s: float
    decoded: Mapping[FrameRequest, Frames]
    tally: FrameTally = FrameTally(0, 0)
    payload: dict[str, np.ndarray] = field(default_factory=dict)
    _shared: dict[object, Any] = field(default_factory=dict, repr=False)

    def frames(self, request: FrameRequest) -> Frames:
        """Return the frames of a request that the axis made beforehand."""
        return self.decoded[request]

    def shared(self, key: object, make: Callable[[], T]) -> T:
        """Return what ``make`` gives, computed once for all axes that ask under the same key, such as optical flow."""
        if key not in self._shared:
            self._shared[key] = make()
        return cast(T, self._shared[key])
