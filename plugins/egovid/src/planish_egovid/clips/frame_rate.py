"""Frames and seconds, by a rational number of frames a second."""

from __future__ import annotations

import math
from fractions import Fraction

from planish.errors import DataError

_NTSC = Fraction(1000, 1001)


def rational_fps(fps: float | Fraction) -> Fraction:
    """Return the frame rate that a rounded number stands for: 29.97 is 30000/1001, 30.0 is 30.

    Args:
        fps: Frames a second, as files and tables write it.

    Raises:
        DataError: It is not a number above 0.
    """
    if isinstance(fps, Fraction):
        if fps <= 0:
            raise DataError(f"fps is {fps}; expected more than 0")
        return fps
    if not math.isfinite(fps) or fps <= 0:
        raise DataError(f"fps is {fps}; expected a number above 0")
    whole = round(fps)
    if whole and abs(fps - whole) < 1e-3:
        return Fraction(whole)
    nominal = round(fps * 1.001)
    if nominal and abs(fps - float(nominal * _NTSC)) < 5e-3:
        return nominal * _NTSC
    return Fraction(fps).limit_denominator(1001)


def to_seconds(frame: int, fps: Fraction) -> float:
    """Return when a frame is shown, in seconds from the first one."""
    return float(frame / fps)


def to_frame(time_s: float, fps: Fraction) -> int:
    """Return the frame nearest to a time."""
    return math.floor(Fraction(time_s) * fps + Fraction(1, 2))
