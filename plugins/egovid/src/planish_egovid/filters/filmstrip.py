"""The filmstrip: a few frames of a clip side by side."""

from __future__ import annotations

import cv2
import numpy as np
from planish.interfaces import Illustration

from planish_egovid.video.request import FrameRequest
from planish_egovid.video.view import ClipView

FRAMES = 4
SIZE = 240
"""Longer side of a frame in pixels."""
_QUALITY = 80


def filmstrip_request(duration_s: float) -> FrameRequest:
    """Return the frames of a filmstrip: spread evenly, each in the middle of its share of the clip."""
    return FrameRequest(tuple((i + 0.5) * duration_s / FRAMES for i in range(FRAMES)), "rgb", SIZE)


def filmstrip(view: ClipView) -> Illustration:
    """Return the filmstrip of a clip for which :func:`filmstrip_request` was made."""
    frames = view.frames(filmstrip_request(view.duration_s))
    row = np.concatenate(list(frames.images), axis=1)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(row, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    times = ", ".join(f"{time:.2f}" for time in frames.times_s)
    return Illustration("Frames", data.tobytes(), "image/jpeg", f"after {times} s")
