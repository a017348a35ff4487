"""Carrying the state from sample to sample of the inertial recording, with its errors (Sola 2017, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.fusion.state import BA, BG, SIZE, TH, G, NavigationState, P, V
from planish_egovid.kinematics.imu.gravity import STANDARD_GRAVITY
from planish_egovid.kinematics.pose.rotation import exp, hat, right_jacobian

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ImuNoise:
    """Noise of an inertial sensor. The defaults suit the consumer parts in head-worn cameras.

    Attributes:
        gyro: White noise in rad/s/sqrt(Hz).
        accel: White noise in m/s^2/sqrt(Hz).
        gyro_walk: Random walk of the bias in rad/s^2/sqrt(Hz).
        accel_walk: Random walk of the bias in m/s^3/sqrt(Hz).
    """

    gyro: float = 2e-3
    accel: float = 2e-2
    gyro_walk: float = 2e-5
    accel_walk: float = 5e-4


def propagate(
    state: NavigationState, covariance: Array, times: Array, gyro: Array, accel: Array, noise: ImuNoise
) -> tuple[NavigationState, Array, Array]:
    """Carry a state over inertial samples, each step with the mean of its two ends.

    Args:
        state: At ``times[0]``.
        covariance: Of its error, [24, 24].
        times: float64 [n], seconds.
        gyro: float64 [n, 3], rad/s.
        accel: float64 [n, 3], m/s^2.
        noise: Of the sensor.

    Returns:
        The state and covariance at ``times[-1]``, and the transition [24, 24] of the errors.
    """
    transition = np.eye(SIZE)
    for i in range(len(times) - 1):
        dt = float(times[i + 1] - times[i])
        state, step, added = _step(state, (gyro[i] + gyro[i + 1]) / 2, (accel[i] + accel[i + 1]) / 2, dt, noise)
        covariance = step @ covariance @ step.T + added
        transition = step @ transition
    return state, (covariance + covariance.T) / 2, transition


def _step(
    state: NavigationState, gyro: Array, accel: Array, dt: float, noise: ImuNoise
) -> tuple[NavigationState, Array, Array]:
    turn = (gyro - state.gyro_bias) * dt
    force = accel - state.accel_bias
    turned, half = exp(turn), exp(turn / 2)
    middle = state.rotation @ half
    acceleration = middle @ force + state.gravity
    moved = replace(
        state,
        position=state.position + state.velocity * dt + 0.5 * acceleration * dt**2,
        velocity=state.velocity + acceleration * dt,
        rotation=state.rotation @ turned,
    )
    # What each error does to the acceleration of this step.
    to_acceleration = np.zeros((3, SIZE))
    to_acceleration[:, TH] = -state.rotation @ hat(half @ force)
    to_acceleration[:, BG] = middle @ hat(force) @ right_jacobian(turn / 2) * (dt / 2)
    to_acceleration[:, BA] = -middle
    down = STANDARD_GRAVITY * state.gravity_rotation
    to_acceleration[:, G] = np.stack([-down[:, 1], down[:, 0]], axis=1)
    step = np.eye(SIZE)
    step[P, V] = dt * np.eye(3)
    step[P] += 0.5 * dt**2 * to_acceleration
    step[V] += dt * to_acceleration
    step[TH, TH] = turned.T
    step[TH, BG] = -right_jacobian(turn) * dt
    added = np.zeros((SIZE, SIZE))
    eye = np.eye(3)
    added[P, P] = noise.accel**2 * dt**3 / 4 * eye
    added[P, V] = added[V, P] = noise.accel**2 * dt**2 / 2 * eye
    added[V, V] = noise.accel**2 * dt * eye
    added[TH, TH] = noise.gyro**2 * dt * eye
    added[BG, BG] = noise.gyro_walk**2 * dt * eye
    added[BA, BA] = noise.accel_walk**2 * dt * eye
    return moved, step, added
