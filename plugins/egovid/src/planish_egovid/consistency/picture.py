"""Pictures of consistency for the report page."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.errors import WorkError
from planish.interfaces import Illustration

_WIDTH, _HEIGHT, _SIDE, _BOTTOM, _TOP = 480, 140, 8, 24, 10
_GAP = 4


def change_plot(times_s: NDArray[np.float64], changes: NDArray[np.float64], cuts_s: Sequence[float]) -> Illustration:
    """Return an SVG of how much the picture changes from frame to frame, with cuts as dashed lines.

    Args:
        times_s: float64 [changes], time of the later frame of each change, seconds.
        changes: float64 [changes].
        cuts_s: Times of cuts, seconds.
    """
    top, end = max(float(changes.max()), 1e-6), max(float(times_s[-1]), 1e-6)

    def x(time_s: float) -> float:
        return _SIDE + (_WIDTH - 2 * _SIDE) * time_s / end

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * value / top

    line = " ".join(f"{x(float(t)):.1f},{y(float(c)):.1f}" for t, c in zip(times_s, changes, strict=True))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="11" fill="currentColor">',
        f'<path d="M{_SIDE} {_HEIGHT - _BOTTOM}H{_WIDTH - _SIDE}" fill="none" stroke="#888"/>',
    ]
    for cut in cuts_s:
        parts.append(
            f'<path d="M{x(cut):.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#c33" stroke-dasharray="4 3" fill="none"/>'
        )
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.5"/>')
    parts.append(f'<text x="{_SIDE}" y="{_HEIGHT - 8}">0 s</text>')
    parts.append(f'<text x="{_WIDTH - _SIDE}" y="{_HEIGHT - 8}" text-anchor="end">{end:.2f} s</text></svg>')
    caption = "How much the picture changes from frame to frame; dashed: cuts."
    return Illustration("Change over time", "\n".join(parts).encode(), "image/svg+xml", caption)


def around(images: NDArray[np.uint8], times_s: NDArray[np.float64], cut_s: float, score: float) -> Illustration:
    """Return a JPEG of the analysed frames before and after a time, side by side.

    Args:
        images: uint8 [frames, height, width], at least two.
        times_s: float64 [frames].
        cut_s: The time, seconds.
        score: Its ``cut_score``.
    """
    after = min(max(int(np.searchsorted(times_s, cut_s - 1e-6)), 1), len(images) - 1)
    gap = np.full((images.shape[1], _GAP), 255, np.uint8)
    canvas = np.hstack([images[after - 1], gap, images[after]])
    encoded, data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not encoded:
        raise WorkError(f"OpenCV {cv2.__version__} could not encode a JPEG of {canvas.shape[1]} x {canvas.shape[0]} px")
    caption = f"Before and after {cut_s:.2f} s, the change that looks most like a cut (cut_score {score:.2f})."
    return Illustration("Strongest change", data.tobytes(), "image/jpeg", caption)
