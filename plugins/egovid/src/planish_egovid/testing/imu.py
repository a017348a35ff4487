"""What an inertial sensor in the camera reads, as the exact derivative of the head's motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.testing.head_motion import GRAVITY_M_S2, HeadMotion


@dataclass(frozen=True)
class ImuRecording:
    """Readings in camera axes.

    Attributes:
        times_s: float64 [samples], what the recording's clock says.
        accel_m_s2: float64 [samples, 3], specific force: at rest it is minus gravity.
        gyro_rad_s: float64 [samples, 3], angular velocity.
    """

    times_s: NDArray[np.float64]
    accel_m_s2: NDArray[np.float64]
    gyro_rad_s: NDArray[np.float64]


def simulate_imu(
    motion: HeadMotion,
    duration_s: float,
    *,
    rate_hz: float = 200.0,
    accel_bias_m_s2: tuple[float, float, float] = (0.0, 0.0, 0.0),
    gyro_bias_rad_s: tuple[float, float, float] = (0.0, 0.0, 0.0),
    accel_noise_m_s2: float = 0.0,
    gyro_noise_rad_s: float = 0.0,
    time_offset_s: float = 0.0,
    seed: int = 0,
) -> ImuRecording:
    """Return the readings of a head's motion from time 0 to ``duration_s``, both included.

    Args:
        motion: The motion.
        duration_s: Seconds.
        rate_hz: Samples a second.
        accel_bias_m_s2: Added to every acceleration.
        gyro_bias_rad_s: Added to every rate.
        accel_noise_m_s2: Standard deviation of white noise on each acceleration.
        gyro_noise_rad_s: Standard deviation of white noise on each rate.
        time_offset_s: How far the recording's clock is ahead of the video's: a reading taken at video time t says
            ``t + time_offset_s``.
        seed: Of the noise.
    """
    random = np.random.default_rng([seed, 11])
    taken_s = np.arange(int(np.floor(duration_s * rate_hz + 1e-9)) + 1) / rate_hz
    accel = np.stack([motion.rotation(t).T @ (motion.acceleration(t) - GRAVITY_M_S2) for t in taken_s])
    gyro = np.stack([motion.body_rates(t) for t in taken_s])
    accel = accel + np.asarray(accel_bias_m_s2) + accel_noise_m_s2 * random.standard_normal(accel.shape)
    gyro = gyro + np.asarray(gyro_bias_rad_s) + gyro_noise_rad_s * random.standard_normal(gyro.shape)
    return ImuRecording(taken_s + time_offset_s, accel, gyro)
