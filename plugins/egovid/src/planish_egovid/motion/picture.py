"""Pictures of motion for the report page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.errors import WorkError
from planish.interfaces import Illustration

from planish_egovid.policy.rule import Threshold

ARROW_SPACING_PX = 24
_HALF_CIRCLE = 180
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 480, 180, 44, 30, 14


def flow_picture(
    image: NDArray[np.uint8], flow: NDArray[np.float32], grid: int, start_s: float, end_s: float
) -> Illustration:
    """Return a JPEG of the flow over its first frame: colour is direction, strength is magnitude, arrows are to scale.

    Args:
        image: uint8 [height, width].
        flow: float32 [rows, columns, 2], at every ``grid``-th pixel, in pixels of ``image``.
        grid: Pixels between flow vectors.
        start_s: Time of the first frame, seconds.
        end_s: Time of the second frame, seconds.
    """
    height, width = image.shape
    full = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    magnitude, angle = cv2.cartToPolar(full[..., 0], full[..., 1], angleInDegrees=True)
    hue = (angle / 2).astype(np.uint8) % _HALF_CIRCLE
    strength = np.clip(magnitude / max(float(np.percentile(magnitude, 99)), 1.0), 0, 1) * 255
    colours = cv2.cvtColor(np.dstack([hue, strength.astype(np.uint8), np.full_like(hue, 255)]), cv2.COLOR_HSV2BGR)
    canvas = cv2.addWeighted(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), 0.5, colours, 0.5, 0)
    half = ARROW_SPACING_PX // 2
    for y in range(half, height, ARROW_SPACING_PX):
        for x in range(half, width, ARROW_SPACING_PX):
            tip = round(x + float(full[y, x, 0])), round(y + float(full[y, x, 1]))
            cv2.arrowedLine(canvas, (x, y), tip, (0, 0, 0), 1, cv2.LINE_AA, tipLength=0.25)
    encoded, data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not encoded:
        raise WorkError(f"OpenCV {cv2.__version__} could not encode a JPEG of {width} x {height} pixels")
    caption = f"Where pixels move from {start_s:.2f} to {end_s:.2f} s, the pair with the median magnitude."
    return Illustration("Optical flow", data.tobytes(), "image/jpeg", caption)


def magnitude_plot(times_s: Sequence[float], magnitudes: Sequence[float], bounds: Threshold) -> Illustration:
    """Return an SVG of the mean magnitude of each pair over time, with the default bounds as dashed lines.

    Args:
        times_s: Where each pair starts, seconds from the clip's start.
        magnitudes: Mean magnitude of each pair, px at a mean side of 512.
        bounds: The bounds to draw; those far above the curve are left out.
    """
    top = _ceiling(max(*magnitudes, bounds.min or 0.0, 1.0))
    end = max(times_s[-1], 1e-6)

    def x(time_s: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * time_s / end

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * value / top

    line = " ".join(f"{x(t):.1f},{y(m):.1f}" for t, m in zip(times_s, magnitudes, strict=True))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="11" fill="currentColor">',
        f'<path d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - 8}" fill="none" stroke="#888"/>',
    ]
    for value in (0.0, top / 2, top):
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for bound in (bounds.min, bounds.max):
        if bound is not None and bound <= top:
            parts.append(
                f'<path d="M{_LEFT} {y(bound):.1f}H{_WIDTH - 8}" stroke="#c33" stroke-dasharray="4 3" fill="none"/>'
            )
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.5"/>')
    parts += [
        f'<circle cx="{x(t):.1f}" cy="{y(m):.1f}" r="2.2" fill="#2563eb"/>'
        for t, m in zip(times_s, magnitudes, strict=True)
    ]
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 8}">0 s</text>')
    parts.append(f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 8}" text-anchor="end">{times_s[-1]:.2f} s</text></svg>')
    caption = "Mean magnitude of each pair over time, in px at a mean side of 512; dashed: the default bounds."
    return Illustration("Motion over time", "\n".join(parts).encode(), "image/svg+xml", caption)


def _ceiling(value: float) -> float:
    """Return a round number at or above a value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)
