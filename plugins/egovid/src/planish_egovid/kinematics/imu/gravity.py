"""The direction of gravity in an inertial recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import ImuError
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.pose.rotation import exp

Array = NDArray[np.float64]

STANDARD_GRAVITY = 9.80665
"""m/s^2."""


@dataclass(frozen=True, eq=False)
class Gravity:
    """Gravity as seen at the start of a recording.

    Attributes:
        direction: Unit vector [3] that points down, in the sensor's axes at the first sample.
        std_deg: Rough standard deviation of that direction in degrees.
        measured_m_s2: Mean length of the specific force; far from 9.81 means a wrong unit or a fall.
    """

    direction: Array
    std_deg: float
    measured_m_s2: float


def integrated_rotations(stream: ImuStream, bias: Array | None = None) -> Array:
    """Return the rotations [n, 3, 3] from the axes of each sample to those of the first, from the gyroscope."""
    rates = stream.gyro - (np.zeros(3) if bias is None else bias)
    steps = exp((rates[1:] + rates[:-1]) / 2 * np.diff(stream.times_s)[:, None])
    rotations = np.empty((len(rates), 3, 3))
    rotations[0] = np.eye(3)
    for i, step in enumerate(steps):
        rotations[i + 1] = rotations[i] @ step
    return rotations


def gravity_direction(stream: ImuStream) -> Gravity:
    """Return gravity from the mean specific force, each sample first turned back into the axes of the first.

    Turning back keeps head turns from smearing the mean; what is left is that a walk's accelerations average out.

    Raises:
        ImuError: There is no accelerometer, or its mean is nowhere near gravity.
    """
    if not stream.has_accel:
        raise ImuError(f"{stream.source}: there is no accelerometer, so the direction of gravity is unknown")
    force = np.einsum("nij,nj->ni", integrated_rotations(stream), stream.accel)
    mean = force.mean(axis=0)
    size = float(np.linalg.norm(mean))
    if not 0.5 * STANDARD_GRAVITY < size < 1.5 * STANDARD_GRAVITY:
        raise ImuError(
            f"{stream.source}: the mean specific force is {size:.2f} m/s^2, nowhere near {STANDARD_GRAVITY:.2f}; it "
            "must be in m/s^2 (not in g) and must contain gravity"
        )
    # Accelerations of a walk last about half a second, so that many samples count as one.
    independent = max((stream.times_s[-1] - stream.times_s[0]) / 0.5, 1.0)
    across = force - np.outer(force @ mean, mean) / size**2
    spread = float(np.sqrt((across**2).sum(axis=1).mean() / 2 / independent))
    return Gravity(-mean / size, float(np.degrees(np.arctan2(spread, size))), float(stream_norm(stream)))


def stream_norm(stream: ImuStream) -> float:
    """Return the mean length of the specific force in m/s^2."""
    return float(np.linalg.norm(stream.accel, axis=1).mean())
