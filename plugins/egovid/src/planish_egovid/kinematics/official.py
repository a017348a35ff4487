"""The published fusion of inertial and SfM poses, as EgoVid's ``kalman_imu_colmap.py`` does it, for comparison.

This reproduces what the released annotation was made with, including three of its faults, each marked below: 24 poses
of frames 0 to 115 are spread over frames 0 to 119; the gyroscope is high-pass filtered, which removes slow head turns;
and the filter starts from a zero quaternion, never aligns the signs of q and -q, and does not normalise after an
update.
Nothing else in the package uses it unless ``compat`` is ``"official"``.

Not reproduced: poses in the file system's order, [x, y, z, w] quaternions multiplied as [w, x, y, z], a scale that may
come out negative, and lenses without distortion; these are accidents without which the published poses are better.
Where the script's constants are not stated in the paper, they are the script's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.signal import butter, filtfilt
from scipy.spatial.transform import Rotation, Slerp

from planish_egovid.kinematics.errors import ImuError, PoseError
from planish_egovid.kinematics.pose.rotation import nearest_rotation
from planish_egovid.kinematics.pose.trajectory import Trajectory, check_poses, compose

Array = NDArray[np.float64]

GRAVITY_HZ = 0.1
NOISE_HZ = 1.0
MAX_COST = 50.0
"""Alignment cost above which the script rejects a clip."""
FRAMES = 120


@dataclass(frozen=True, eq=False)
class OfficialFusion:
    """What the script would have saved.

    Attributes:
        fused: Camera-to-world poses, the script's ``fused_pose.npy``.
        sfm: SfM poses spread over all frames, rebased and divided by the scale: ``sfm_pose.npy``.
        imu: Poses from the inertial recording alone: ``imu_pose.npy``.
        cost: Alignment cost: ``cost.txt``.
        scale: Factor from metres to the SfM's unit.
    """

    fused: Trajectory
    sfm: Trajectory
    imu: Trajectory
    cost: float
    scale: float

    @property
    def is_accepted(self) -> bool:
        """Whether the script would have kept the clip."""
        return self.cost <= MAX_COST


def spread_poses(poses: Array, frames: int = FRAMES) -> Array:
    """Return ``frames`` poses [frames, 4, 4] interpolated from a few [n, 4, 4], the last at the last frame (fault 1).

    The 24 poses that the script reads are of frames 0, 5, ..., 115; it spreads them over 0 to 119, so that pose i
    stands at frame 119 i / 23 instead of 5 i, 4 frames late at the end. The result is rebased to its first pose.
    """
    check_poses(poses)
    knots, wanted = np.linspace(0, 1, len(poses)), np.linspace(0, 1, frames)
    rotations = Slerp(knots, Rotation.from_matrix(poses[:, :3, :3]))(wanted).as_matrix()
    centres = np.stack([np.interp(wanted, knots, poses[:, k, 3]) for k in range(3)], axis=1)
    spread = compose(rotations, centres)
    return np.asarray(np.linalg.inv(spread[0]) @ spread, np.float64)


def without_gravity(accel: Array, fps: float) -> Array:
    """Return specific force [n, 3] minus its part below 0.1 Hz (first-order Butterworth, forwards and backwards)."""
    b, a = butter(1, GRAVITY_HZ, "low", fs=fps)
    return np.asarray(accel - filtfilt(b, a, accel, axis=0), np.float64)


def without_drift(values: Array, fps: float) -> Array:
    """Return the part of values [n, 3] above 1 Hz (first-order Butterworth, forwards and backwards).

    The script applies this to the gyroscope too, as noise removal: a head turn that takes longer than a second goes
    with it (fault 2).
    """
    b, a = butter(1, NOISE_HZ, "high", fs=fps)
    return np.asarray(filtfilt(b, a, values, axis=0), np.float64)


def integrate_positions(accel: Array, velocity: Array, dt: float) -> Array:
    """Return positions [n, 3] by double integration of accelerations [n, 3] from a start velocity [3]."""
    velocities = velocity + np.vstack([np.zeros(3), np.cumsum(accel[:-1] * dt, axis=0)])
    steps = velocities * dt + 0.5 * accel * dt**2
    return np.vstack([np.zeros(3), np.cumsum(steps[:-1], axis=0)])


def fuse_official(poses: Array, gyro: Array, accel: Array, *, fps: float = 30.0) -> OfficialFusion:
    """Align an inertial recording at frame rate with SfM poses and fuse both by the script's Kalman filter.

    Args:
        poses: Camera-to-world SfM poses [n, 4, 4] of frames 0, 5, ..., in order.
        gyro: float64 [F, 3], rad/s, a sample a frame.
        accel: float64 [F, 3], m/s^2.
        fps: Frames a second.

    Raises:
        PoseError: The poses are no poses, or the scale comes out as zero or negative.
        ImuError: The recording has fewer than 20 samples, or unequal lengths.
    """
    frames = len(accel)
    if accel.shape != gyro.shape or accel.shape[1:] != (3,) or frames < 20:
        raise ImuError(f"the published fusion needs [F, 3] arrays with F >= 20; gyro {gyro.shape}, accel {accel.shape}")
    dt = 1 / fps
    sfm = spread_poses(poses, frames)
    linear = without_drift(without_gravity(accel, fps), fps)
    rates = without_drift(gyro, fps)
    target = sfm[:, :3, 3]

    def residual(x: Array) -> Array:
        moved = integrate_positions(linear, x[:3], dt) @ Rotation.from_rotvec(x[3:6]).as_matrix().T + x[6:9]
        return np.asarray(np.linalg.norm(x[9] * moved - target, axis=1))

    solved = least_squares(residual, np.zeros(10), loss="cauchy")
    scale = float(solved.x[9])
    if not scale > 0:
        raise PoseError(
            f"the published alignment gives a scale of {scale:.3g}, which is no scale; the clip has no fusion"
        )
    turn = Rotation.from_rotvec(solved.x[3:6]).as_matrix()
    linear, rates, velocity = linear @ turn.T, rates @ turn.T, turn @ solved.x[:3]
    sfm[:, :3, 3] /= scale
    times: Array = np.arange(frames, dtype=np.float64) * dt
    fused = _kalman(sfm, rates, linear, velocity, dt)
    turned = Rotation.identity()
    rotations = [turned.as_matrix()]
    for rate in rates[:-1]:
        turned = turned * Rotation.from_rotvec(rate * dt)
        rotations.append(turned.as_matrix())
    imu = compose(np.stack(rotations), integrate_positions(linear, velocity, dt))
    return OfficialFusion(
        Trajectory(fused, times, is_metric=True),
        Trajectory(sfm, times, is_metric=True),
        Trajectory(imu, times, is_metric=True),
        float(solved.cost),
        scale,
    )


def _kalman(sfm: Array, rates: Array, accel: Array, velocity: Array, dt: float) -> Array:
    """Return the script's filtered poses [F, 4, 4]; the state is position, quaternion (w, x, y, z), velocity.

    Fault 5: the state starts at zero, quaternion included; q and -q of the observations are not told apart; after an
    update the quaternion is not normalised, but for reading a rotation from it.
    """
    state, covariance = np.zeros(10), 0.1 * np.eye(10)
    state[7:] = velocity
    transition = np.eye(10)
    transition[:3, 7:] = dt * np.eye(3)
    observe = np.eye(7, 10)
    process, noise = 0.01 * np.eye(10), 0.1 * np.eye(7)
    quaternions = np.roll(Rotation.from_matrix(sfm[:, :3, :3]).as_quat(), 1, axis=1)
    found = np.empty((len(sfm), 4, 4))
    for k in range(len(sfm)):
        w, x, y, z = state[3:7]
        p, q, r = rates[k]
        change = 0.5 * dt * np.array(
            [-x * p - y * q - z * r, w * p + y * r - z * q, w * q - x * r + z * p, w * r + x * q - y * p]
        )  # fmt: skip
        state[:3] += state[7:] * dt
        quaternion = state[3:7] + change
        length = float(np.linalg.norm(quaternion))
        state[3:7] = quaternion / length if length > 0 else quaternion
        state[7:] += accel[k] * dt
        covariance = transition @ covariance @ transition.T + process
        gain = covariance @ observe.T @ np.linalg.inv(observe @ covariance @ observe.T + noise)
        measured = np.concatenate([sfm[k, :3, 3], quaternions[k]])
        state = state + gain @ (measured - observe @ state)
        covariance = (np.eye(10) - gain @ observe) @ covariance
        rotation = Rotation.from_quat(np.roll(state[3:7], -1)).as_matrix()
        found[k] = compose(nearest_rotation(rotation), state[:3])
    return found
