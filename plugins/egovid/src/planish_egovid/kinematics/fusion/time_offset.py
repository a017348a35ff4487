"""How far an inertial recording's clock is from the video's, from the speed of rotation that both see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.pose.visual_motion import VisualMotion

Array = NDArray[np.float64]

_STEP_S = 0.01
_MIN_PAIRS = 8


@dataclass(frozen=True)
class TimeOffset:
    """The offset between two clocks.

    Attributes:
        offset_s: What the recording's clock is ahead: a sample taken at video time t carries the time t + offset.
        correlation: Pearson correlation of the speeds of rotation at that offset.
        is_reliable: Whether the correlation is at least 0.5, the best offset lies inside the range that was searched,
            and no other offset further than a quarter second away does nearly as well.
    """

    offset_s: float
    correlation: float
    is_reliable: bool


def estimate_time_offset(visual: VisualMotion, imu: ImuStream, *, max_offset_s: float = 1.5) -> TimeOffset | None:
    """Return the offset at which the gyroscope's and the picture's speed of rotation agree best.

    Both are means over the same intervals. The maximum of the correlation is refined by a parabola, to a fraction of
    the search's step of 10 ms. Axes need not be known: only the lengths of the angular velocities are compared.

    Args:
        visual: Motion from the picture.
        imu: The recording; the more it has before and after the clip, the better.
        max_offset_s: Offsets are searched from minus to plus this.

    Returns:
        The offset, or None if the recording overlaps too little or nothing rotates.
    """
    speed = np.linalg.norm(visual.angular_velocities, axis=1)
    starts, ends = visual.times_s[:-1], visual.times_s[1:]
    known = np.isfinite(speed)
    if np.count_nonzero(known) < _MIN_PAIRS or np.std(speed[known]) < 1e-4:
        return None
    steps = round(max_offset_s / _STEP_S)
    offsets = np.arange(-steps, steps + 1) * _STEP_S
    correlations = np.array([_correlation(speed, known, imu, starts + t, ends + t) for t in offsets])
    if not np.isfinite(correlations).any():
        return None
    best = int(np.nanargmax(correlations))
    offset, peak = float(offsets[best]), float(correlations[best])
    inside = 0 < best < len(offsets) - 1 and bool(np.isfinite(correlations[[best - 1, best + 1]]).all())
    if inside:
        left, right = float(correlations[best - 1]), float(correlations[best + 1])
        curvature = left - 2 * peak + right
        if curvature < 0:
            offset += _STEP_S * 0.5 * (left - right) / curvature
    elsewhere = np.abs(offsets - offsets[best]) > 0.25
    rival = np.nanmax(correlations[elsewhere], initial=-1.0)
    return TimeOffset(offset, peak, bool(inside and peak >= 0.5 and rival < peak - 0.02))


def _correlation(speed: Array, known: NDArray[np.bool_], imu: ImuStream, starts: Array, ends: Array) -> float:
    turning = np.linalg.norm(imu.mean_gyro(starts, ends), axis=1)
    both = known & np.isfinite(turning)
    if np.count_nonzero(both) < max(_MIN_PAIRS, 0.5 * np.count_nonzero(known)):
        return float("nan")
    a, b = speed[both], turning[both]
    if np.std(a) < 1e-6 or np.std(b) < 1e-6:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
