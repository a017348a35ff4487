"""A clip's view made from frames in memory, so that an axis can be tried without a file or a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.interfaces import Clip

from planish_egovid.axis import Axis
from planish_egovid.video.request import FrameRequest, Frames, VideoInfo
from planish_egovid.video.view import ClipView, FrameTally

Requests = Callable[[Clip, VideoInfo, float], Sequence[FrameRequest]]


def view_of(
    frames: NDArray[np.uint8],
    *requests: Axis | Requests,
    fps: float = 30.0,
    times_s: Sequence[float] | NDArray[np.float64] | None = None,
    clip: Clip | None = None,
) -> ClipView:
    """Return a view that answers what axes ask for.

    Sizes and times follow :class:`~planish_egovid.video.request.FrameRequest`; pictures are reduced by averaging, which
    differs from a decoder's scaler by about a grey level.

    Args:
        frames: uint8 [frames, height, width, 3], RGB.
        requests: Axes, or functions like :meth:`planish_egovid.axis.Axis.requests`.
        fps: Frames a second.
        times_s: Times of the frames, instead of ``fps``.
        clip: Whose view it is; by default one called ``"memory"`` that has no text.
    """
    times = np.arange(len(frames)) / fps if times_s is None else np.asarray(times_s, np.float64)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / fps
    duration_s = float(times[-1]) + step
    height, width = frames.shape[1:3]
    uneven = len(times) > 1 and float(np.ptp(np.diff(times))) > step / 10
    video = VideoInfo(width, height, len(frames) / duration_s, len(frames), duration_s, 0, "none", "rgb24", uneven)
    clip = clip or Clip("memory", "memory")
    decoded = {}
    for source in requests:
        asked = source.requests if isinstance(source, Axis) else source
        for request in asked(clip, video, duration_s):
            decoded[request] = _answer(request, frames, times)
    return ClipView(clip, video, duration_s, decoded, FrameTally(len(frames), len(frames)))


def _answer(request: FrameRequest, frames: NDArray[np.uint8], times: NDArray[np.float64]) -> Frames:
    # The frame on screen at a time is the last one that began by then.
    indices = np.clip(np.searchsorted(times, np.asarray(request.times_s) + 1e-9, side="right") - 1, 0, None)
    height, width = frames.shape[1:3]
    scale = 1.0
    if request.fit == "inside":
        scale = min(1.0, request.size / max(height, width))
    elif request.fit == "cover":
        scale = request.size / min(height, width)
    made: dict[int, NDArray[np.uint8]] = {}
    for index in sorted(set(indices.tolist())):
        image = frames[index]
        if scale != 1.0:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        if request.fit == "cover":
            top, left = (image.shape[0] - request.size) // 2, (image.shape[1] - request.size) // 2
            image = image[top : top + request.size, left : left + request.size]
        made[index] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if request.pixels == "gray" else image
    return Frames(np.stack([made[index] for index in indices.tolist()]), times[indices], scale)
