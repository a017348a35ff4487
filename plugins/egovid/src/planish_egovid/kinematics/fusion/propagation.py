"""Carrying the state from sample to sample of the inertial recording, with its errors (Sola 2017, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.fusion.state import BA, BG, SIZE, TH, G, NavigationState, P, V
from planish_egovid.kinematics.imu.gravity import STANDARD_GRAVITY
from planish_egovid.kinematics.pose.rotation import exp, hat, nearest_rotation, right_jacobian

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
    dt = np.diff(times)
    turns = ((gyro[1:] + gyro[:-1]) / 2 - state.gyro_bias) * dt[:, None]
    forces = (accel[1:] + accel[:-1]) / 2 - state.accel_bias
    turned, half = exp(turns), exp(turns / 2)
    starts = np.empty((len(dt) + 1, 3, 3))
    starts[0] = state.rotation
    for i, turn in enumerate(turned):
        starts[i + 1] = starts[i] @ turn
    middles = starts[:-1] @ half
    accelerations = np.einsum("nij,nj->ni", middles, forces) + state.gravity
    velocities = np.concatenate([state.velocity[None], state.velocity + np.cumsum(accelerations * dt[:, None], axis=0)])
    shifts = velocities[:-1] * dt[:, None] + accelerations * dt[:, None] ** 2 / 2
    moved = replace(
        state,
        position=state.position + shifts.sum(axis=0),
        velocity=velocities[-1],
        rotation=nearest_rotation(starts[-1]),
    )
    transition = np.eye(SIZE)
    steps = _error_steps(state, starts[:-1], middles, half, turned, turns, forces, dt)
    for step, length in zip(steps, dt, strict=True):
        covariance = step @ covariance @ step.T + _added(float(length), noise)
        transition = step @ transition
    return moved, (covariance + covariance.T) / 2, transition


def _error_steps(
    state: NavigationState,
    starts: Array,
    middles: Array,
    half: Array,
    turned: Array,
    turns: Array,
    forces: Array,
    dt: Array,
) -> Array:
    """Return the transitions [n, 24, 24] of the errors over each step."""
    n = len(dt)
    # What each error does to the acceleration of the step.
    to_acceleration = np.zeros((n, 3, SIZE))
    to_acceleration[:, :, TH] = -starts @ hat(np.einsum("nij,nj->ni", half, forces))
    to_acceleration[:, :, BG] = middles @ hat(forces) @ right_jacobian(turns / 2) * (dt / 2)[:, None, None]
    to_acceleration[:, :, BA] = -middles
    down = STANDARD_GRAVITY * state.gravity_rotation
    to_acceleration[:, :, G] = np.stack([-down[:, 1], down[:, 0]], axis=1)
    steps = np.tile(np.eye(SIZE), (n, 1, 1))
    steps[:, P, V] = dt[:, None, None] * np.eye(3)
    steps[:, P] += (dt**2 / 2)[:, None, None] * to_acceleration
    steps[:, V] += dt[:, None, None] * to_acceleration
    steps[:, TH, TH] = np.swapaxes(turned, 1, 2)
    steps[:, TH, BG] = -right_jacobian(turns) * dt[:, None, None]
    return steps


@lru_cache(maxsize=256)
def _added(dt: float, noise: ImuNoise) -> Array:
    added = np.zeros((SIZE, SIZE))
    eye = np.eye(3)
    added[P, P] = noise.accel**2 * dt**3 / 4 * eye
    added[P, V] = added[V, P] = noise.accel**2 * dt**2 / 2 * eye
    added[V, V] = noise.accel**2 * dt * eye
    added[TH, TH] = noise.gyro**2 * dt * eye
    added[BG, BG] = noise.gyro_walk**2 * dt * eye
    added[BA, BA] = noise.accel_walk**2 * dt * eye
    return added
