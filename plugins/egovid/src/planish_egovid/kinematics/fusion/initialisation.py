"""A first guess of velocity, gravity and scale, from how the recording's integrals fit what the picture saw.

Given rotations, the path is linear in all three (Martinelli 2014; Qin et al. 2018, section V-B), so the guess is a
least-squares fit, with weak priors that a person walks rather than flies and that the mean specific force is gravity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.imu.gravity import STANDARD_GRAVITY, gravity_direction, integrated_rotations
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.pose.rotation import exp, hat, log
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory
from planish_egovid.kinematics.pose.visual_motion import VisualMotion

Array = NDArray[np.float64]

VELOCITY_STD = 1.5
"""m/s, of a person who wears a camera."""
GRAVITY_STD = 0.5
"""m/s^2, of the mean specific force against gravity, a few seconds long."""
LENGTH_STD = 0.01
"""m/s^2, of gravity's length: it is known, only its direction is not."""
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class FirstGuess:
    """Where a filter may start; the world is the first camera's axes, or the trajectory's world.

    Attributes:
        velocity: float64 [3], m/s.
        gravity: Unit direction [3].
        gyro_bias: float64 [3], rad/s.
        scale: Metres of one unit of the trajectory, or None if there is none, or it is undetermined: negative, or known
            to no better than a half.
        scale_std: Relative standard deviation of the scale, for a sensor without noise.
    """

    velocity: Array
    gravity: Array
    gyro_bias: Array
    scale: float | None = None
    scale_std: float = 0.0


def gyro_bias_of(visual_rates: Array, imu: ImuStream, starts: Array, ends: Array) -> Array:
    """Return the median difference [3] between the gyroscope and the picture, rad/s; zero if they never overlap."""
    difference = imu.mean_gyro(starts, ends) - visual_rates
    known = np.isfinite(difference).all(axis=1)
    return np.median(difference[known], axis=0) if np.count_nonzero(known) >= 3 else np.zeros(3)


def guess_from_motion(visual: VisualMotion, imu: ImuStream) -> FirstGuess:
    """Return a guess from directions of steps: every step must lie along its direction.

    Args:
        visual: Motion from the picture.
        imu: The recording in camera axes, on the video's clock, covering the frames.
    """
    times = visual.times_s
    bias = gyro_bias_of(visual.angular_velocities, imu, times[:-1], times[1:])
    path = _Path(imu, times, bias, np.eye(3))
    rows, values, sizes = [], [], []
    for k, pair in enumerate(visual.pairs):
        if pair is None or pair.translation is None or pair.translation_covariance is None:
            continue
        step = path.step(k)
        across = hat(pair.translation) @ path.rotations[k + 1].T
        rows.append(across @ step.of_unknowns)
        values.append(-across @ step.known)
        sizes.append(np.sqrt(np.trace(pair.translation_covariance) / 2 + 1e-4) * (times[k + 1] - times[k]))
    prior = _gravity_prior(imu, times, np.eye(3))
    velocity, gravity = np.zeros(3), prior
    for _ in range(_ROUNDS):
        speed = max(float(np.linalg.norm(velocity)), 0.3)
        weights = [1 / (size * speed) for size in sizes]
        solved, _ = _solve(rows, values, weights, 6, prior)
        velocity, gravity = solved[:3], solved[3:6]
    return FirstGuess(velocity, gravity / np.linalg.norm(gravity), bias)


def guess_from_trajectory(trajectory: Trajectory, imu: ImuStream, *, position_std: float) -> FirstGuess:
    """Return a guess from a trajectory up to scale.

    Args:
        trajectory: Poses from the picture.
        imu: The recording in camera axes, on the video's clock, covering the frames.
        position_std: Of a camera centre, in the trajectory's unit.
    """
    c2w = trajectory.to(PoseConvention.CAMERA_TO_WORLD)
    times = c2w.times_s
    start, bias = _start_and_bias(c2w, imu)
    path = _Path(imu, times, bias, start)
    prior = _gravity_prior(imu, times, start)
    # The picture's positions carry the noise, so they stand on the left: everything is in the picture's unit, and the
    # unknowns are velocity, gravity, start, and the units a metre, which is 1 / scale.
    rows = []
    for k in range(len(times)):
        elapsed = times[k] - times[0]
        rows.append(
            np.concatenate(
                [elapsed * np.eye(3), elapsed**2 / 2 * np.eye(3), np.eye(3), path.positions[k][:, None]], axis=1
            )
        )
    solved, std, shrink = np.zeros(10), np.inf, 1.0
    for _ in range(_ROUNDS):
        solved, covariance = _solve(
            rows, list(c2w.translations - c2w.translations[0]), [1 / position_std] * len(rows), 10, prior, shrink=shrink
        )
        if not solved[9] > 0:
            break
        shrink, std = float(solved[9]), float(np.sqrt(covariance[9, 9]) / solved[9])
    if not (np.isfinite(solved).all() and solved[9] > 0 and std < 0.5):
        return FirstGuess(np.zeros(3), prior / np.linalg.norm(prior), bias)
    gravity = solved[3:6]
    return FirstGuess(solved[:3] / shrink, gravity / np.linalg.norm(gravity), bias, 1 / shrink, std)


@dataclass(frozen=True, eq=False)
class _Step:
    of_unknowns: Array  # [3, 6], of velocity and gravity
    known: Array  # [3]


class _Path:
    """Rotations, and velocity and position without start velocity and gravity, at the frames."""

    def __init__(self, imu: ImuStream, times: Array, bias: Array, start: Array) -> None:
        inside = imu.between(float(times[0]), float(times[-1]))
        grid = np.unique(np.concatenate([inside.times_s, times]))
        grid = grid[(grid >= times[0]) & (grid <= times[-1])]

        def at_grid(values: Array) -> Array:
            return np.stack([np.interp(grid, inside.times_s, values[:, k]) for k in range(3)], axis=1)

        dense = ImuStream(grid, at_grid(inside.gyro), at_grid(inside.accel), inside.source)
        rotations = start @ integrated_rotations(dense, bias)
        force = np.einsum("nij,nj->ni", rotations, dense.accel)
        steps = np.diff(grid)[:, None]
        mean = (force[1:] + force[:-1]) / 2
        velocity = np.vstack([np.zeros(3), np.cumsum(mean * steps, axis=0)])
        position = np.vstack([np.zeros(3), np.cumsum(velocity[:-1] * steps + mean * steps**2 / 2, axis=0)])
        index = np.searchsorted(grid, times)
        self.times = times
        self.rotations, self.velocities, self.positions = rotations[index], velocity[index], position[index]

    def step(self, k: int) -> _Step:
        start, end = self.times[k] - self.times[0], self.times[k + 1] - self.times[0]
        of_unknowns = np.concatenate([(end - start) * np.eye(3), (end**2 - start**2) / 2 * np.eye(3)], axis=1)
        return _Step(of_unknowns, self.positions[k + 1] - self.positions[k])


def _start_and_bias(c2w: Trajectory, imu: ImuStream) -> tuple[Array, Array]:
    """Return the start rotation and gyroscope bias with which integrated rotations fit those of a trajectory best."""
    start, bias = c2w.rotations[0], np.zeros(3)
    delta = 1e-4
    for _ in range(3):
        fitted = _Path(imu, c2w.times_s, bias, start).rotations
        residual = log(np.swapaxes(fitted, 1, 2) @ c2w.rotations)
        to_start = np.swapaxes(fitted, 1, 2) @ start
        to_bias = np.stack(
            [
                log(np.swapaxes(fitted, 1, 2) @ _Path(imu, c2w.times_s, bias + delta * axis, start).rotations) / delta
                for axis in np.eye(3)
            ],
            axis=2,
        )
        jacobian = np.concatenate([to_start, to_bias], axis=2).reshape(-1, 6)
        step = np.linalg.lstsq(jacobian, residual.ravel(), rcond=None)[0]
        start, bias = start @ exp(step[:3]), bias + step[3:]
    return start, bias


def _gravity_prior(imu: ImuStream, times: Array, start: Array) -> Array:
    return STANDARD_GRAVITY * start @ gravity_direction(imu.between(float(times[0]), float(times[-1]))).direction


def _solve(
    rows: list[Array],
    values: list[Array],
    weights: list[float],
    size: int,
    gravity: Array,
    *,
    shrink: float | None = None,
) -> tuple[Array, Array]:
    """Return the weighted least-squares solution and its covariance; unknowns 3:6 are gravity.

    Args:
        rows: [3, size] each.
        values: [3] each.
        weights: One a row.
        size: Number of unknowns.
        gravity: What the mean specific force says, m/s^2.
        shrink: If gravity is in units of which the last unknown gives the number a metre: a rough value of that
            unknown, for the weights. None: gravity is in metres, and velocity (0:3) has a prior.
    """
    unit = 1.0 if shrink is None else shrink
    towards, wanted = np.zeros((3, size)), gravity
    towards[:, 3:6] = np.eye(3)
    if shrink is not None:
        towards[:, 9], wanted = -gravity, np.zeros(3)
    stacked = [towards / (GRAVITY_STD * unit), *(weight * row for weight, row in zip(weights, rows, strict=True))]
    right = [wanted / (GRAVITY_STD * unit), *(weight * value for weight, value in zip(weights, values, strict=True))]
    if shrink is None:
        slow = np.zeros((3, size))
        slow[:, :3] = np.eye(3) / VELOCITY_STD
        stacked.append(slow)
        right.append(np.zeros(3))
    solved, down = np.zeros(size), gravity / np.linalg.norm(gravity)
    matrix = np.zeros((0, size))
    for _ in range(3):
        length = np.zeros((1, size))
        length[0, 3:6] = down
        if shrink is not None:
            length[0, 9] = -STANDARD_GRAVITY
        target = STANDARD_GRAVITY if shrink is None else 0.0
        matrix = np.concatenate([*stacked, length / (LENGTH_STD * unit)])
        solved = np.linalg.lstsq(matrix, np.concatenate([*right, [target / (LENGTH_STD * unit)]]), rcond=None)[0]
        found = float(np.linalg.norm(solved[3:6]))
        if not found > 1e-9:
            break
        down = solved[3:6] / found
    covariance: Array = np.linalg.pinv(matrix.T @ matrix, hermitian=True).astype(np.float64)
    return solved, covariance
