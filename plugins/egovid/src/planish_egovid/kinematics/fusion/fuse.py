"""Fusing what the picture saw with what the inertial sensor felt: a metric trajectory with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import ImuError
from planish_egovid.kinematics.fusion.initialisation import (
    FirstGuess,
    guess_from_motion,
    guess_from_trajectory,
)
from planish_egovid.kinematics.fusion.measurement import (
    Attitude,
    Measurement,
    RelativeRotation,
    ScaledPosition,
    TranslationDirection,
)
from planish_egovid.kinematics.fusion.propagation import ImuNoise
from planish_egovid.kinematics.fusion.smoother import Epoch, Estimate, estimate_states
from planish_egovid.kinematics.fusion.state import (
    BA,
    BG,
    CLONING,
    SIZE,
    TH,
    G,
    NavigationState,
    P,
    S,
    V,
    gravity_rotation_of,
)
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory, compose
from planish_egovid.kinematics.pose.visual_motion import VisualMotion

Array = NDArray[np.float64]

MAX_UNCOVERED_S = 0.1
"""How much of a clip's start or end an inertial recording may miss; its nearest sample is held for that long."""
ROUNDS = 3
"""Rounds of the smoother."""
MAX_PAUSE_S = 0.5
"""A longer pause inside the clip cannot be integrated over."""


@dataclass(frozen=True)
class Prior:
    """What is known before the first measurement, as standard deviations.

    Attributes:
        velocity: m/s, of the first guess.
        gravity_deg: Of gravity's direction, of the first guess.
        gyro_bias: rad/s, of the first guess.
        accel_bias: m/s^2, around zero.
        log_scale: Of the first guess, if the guess itself is not less certain; 0.3 is 30 per cent.
    """

    velocity: float = 1.0
    gravity_deg: float = 3.0
    gyro_bias: float = 0.01
    accel_bias: float = 0.1
    log_scale: float = 0.3


@dataclass(frozen=True, eq=False)
class FusedMotion:
    """A metric trajectory from picture and inertial sensor.

    Attributes:
        trajectory: Camera-to-world in metres, at the times that were asked for; the first camera is at the
            origin, and its rotation is the identity or that of the picture's trajectory.
        rotation_std_deg: float64 [F], against the first pose.
        position_std_m: float64 [F], against the first pose.
        gravity: Unit direction [3] in the trajectory's world.
        gyro_bias: float64 [3], rad/s.
        accel_bias: float64 [3], m/s^2.
        path_length_m: Length of the path.
        path_length_std_m: Its standard deviation, from that of the speed along the path, taken as fully correlated.
        scale: Metres of one unit of the picture's trajectory, or None where that has no translations.
        scale_std: Its standard deviation, relative.
        estimate: All states and covariances.
    """

    trajectory: Trajectory
    rotation_std_deg: Array
    position_std_m: Array
    gravity: Array
    gyro_bias: Array
    accel_bias: Array
    path_length_m: float
    path_length_std_m: float
    scale: float | None
    scale_std: float | None
    estimate: Estimate


def fuse_motion(
    visual: VisualMotion,
    imu: ImuStream,
    *,
    times_s: Array | None = None,
    noise: ImuNoise | None = None,
    prior: Prior | None = None,
) -> FusedMotion:
    """Fuse pairwise motion: turns, and the directions of steps where the picture tells them.

    Args:
        visual: Motion from the picture.
        imu: The recording in camera axes and on the video's clock.
        times_s: Times of the poses that are wanted, from the first to the last frame; None for the frames' own.
        noise: Of the sensor.
        prior: What is known beforehand.

    Raises:
        ImuError: The recording does not cover the clip, pauses within it for more than half a second, or has no
            accelerometer.
    """
    imu = _covering(imu, float(visual.times_s[0]), float(visual.times_s[-1]))
    guess = guess_from_motion(visual, imu)
    at: dict[float, list[Measurement]] = {float(visual.times_s[0]): []}
    for k, pair in enumerate(visual.pairs):
        found: list[Measurement] = []
        if pair is not None:
            found.append(RelativeRotation(pair.rotation, pair.rotation_covariance))
            if pair.translation is not None and pair.translation_covariance is not None:
                found.append(TranslationDirection(pair.translation, pair.translation_covariance))
        at[float(visual.times_s[k + 1])] = found
    return _fuse(at, imu, guess, np.eye(3), (0.0, 0.0), times_s, noise, prior, scaled=False)


def fuse_trajectory(
    trajectory: Trajectory,
    imu: ImuStream,
    *,
    position_std: float,
    rotation_std_deg: float,
    times_s: Array | None = None,
    noise: ImuNoise | None = None,
    prior: Prior | None = None,
) -> FusedMotion:
    """Fuse a trajectory up to scale, such as COLMAP's: its poses, and through the sensor, its scale in metres.

    Args:
        trajectory: Poses from the picture, with translations.
        imu: The recording in camera axes and on the video's clock.
        position_std: Standard deviation of a camera centre along each axis, in the trajectory's unit.
        rotation_std_deg: Standard deviation of a rotation about each axis.
        times_s: Times of the poses that are wanted; None for the trajectory's own.
        noise: Of the sensor.
        prior: What is known beforehand.

    Raises:
        ImuError: As :func:`fuse_motion`, or no positive scale makes the path fit the recording.
    """
    c2w = trajectory.to(PoseConvention.CAMERA_TO_WORLD)
    imu = _covering(imu, float(c2w.times_s[0]), float(c2w.times_s[-1]))
    guess = guess_from_trajectory(c2w, imu, position_std=position_std)
    if guess.scale is None:
        raise ImuError(
            "the inertial recording does not tell the scale of the picture's trajectory; a path without acceleration "
            "has none to be told, otherwise check the time offset, the mounting, and that sensor and camera belong "
            "together"
        )
    angle = np.radians(rotation_std_deg)
    # The first centre becomes the origin: anywhere else, its place in metres would hold the first guess of the scale.
    origin = c2w.translations[0]
    at: dict[float, list[Measurement]] = {}
    for k, time in enumerate(c2w.times_s):
        at[float(time)] = [
            ScaledPosition(c2w.translations[k] - origin, position_std**2 * np.eye(3)),
            Attitude(c2w.rotations[k], angle**2 * np.eye(3)),
        ]
    at[float(c2w.times_s[0])] = []  # the first pose is where the filter starts, with the same uncertainty
    start_std = (position_std * guess.scale, float(angle))
    return _fuse(at, imu, guess, c2w.rotations[0], start_std, times_s, noise, prior, scaled=True)


def _fuse(
    measurements: dict[float, list[Measurement]],
    imu: ImuStream,
    guess: FirstGuess,
    rotation: Array,
    start_std: tuple[float, float],
    times_s: Array | None,
    noise: ImuNoise | None,
    prior: Prior | None,
    *,
    scaled: bool,
) -> FusedMotion:
    prior = prior or Prior()
    deviation = np.zeros(SIZE)
    deviation[P], deviation[TH] = start_std
    deviation[V], deviation[BG], deviation[BA] = prior.velocity, prior.gyro_bias, prior.accel_bias
    deviation[G] = np.radians(prior.gravity_deg)
    deviation[S] = max(prior.log_scale, 2 * guess.scale_std) if scaled else 0.0
    covariance = CLONING @ np.diag(deviation**2) @ CLONING.T
    initial = NavigationState(
        velocity=guess.velocity,
        rotation=rotation,
        gyro_bias=guess.gyro_bias,
        gravity_rotation=gravity_rotation_of(guess.gravity),
        log_scale=float(np.log(guess.scale)) if guess.scale else 0.0,
    ).cloned()
    frames = np.array(sorted(measurements))
    wanted = frames if times_s is None else np.asarray(times_s, np.float64)
    if wanted.min() < frames[0] - 1e-9 or wanted.max() > frames[-1] + MAX_UNCOVERED_S:
        raise ImuError(
            f"poses are wanted from {wanted.min():.3f} to {wanted.max():.3f} s, and the picture was analysed from "
            f"{frames[0]:.3f} to {frames[-1]:.3f} s; ask within"
        )
    # Times that differ by rounding only are one epoch, the frame's own.
    extra = [t for t in wanted if np.abs(frames - t).min() > 1e-9]
    epochs = [
        Epoch(float(t), measurements.get(float(t), ()), float(t) in measurements)
        for t in sorted([*frames.tolist(), *map(float, extra)])
    ]
    estimate = estimate_states(initial, covariance, imu, epochs, noise, rounds=ROUNDS)
    return _result(estimate, wanted, scaled=scaled)


def _result(estimate: Estimate, wanted: Array, *, scaled: bool) -> FusedMotion:
    states, covariances = estimate.smoothed, estimate.smoothed_covariance
    index = np.array([int(np.argmin(np.abs(estimate.times_s - t))) for t in wanted])
    poses = compose(np.stack([states[i].rotation for i in index]), np.stack([states[i].position for i in index]))
    last = states[-1]
    velocities = np.stack([state.velocity for state in states])
    speeds = np.linalg.norm(velocities, axis=1)
    ahead = velocities / np.maximum(speeds, 1e-9)[:, None]
    speed_std = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", ahead, covariances[:, V, V], ahead), 0))
    log_scale_std = float(np.sqrt(max(covariances[-1, 17, 17], 0)))
    positions = np.stack([state.position for state in states])
    return FusedMotion(
        Trajectory(poses, wanted, PoseConvention.CAMERA_TO_WORLD, is_metric=True),
        np.degrees(np.sqrt(np.maximum(np.trace(covariances[index][:, TH, TH], axis1=1, axis2=2), 0))),
        np.sqrt(np.maximum(np.trace(covariances[index][:, P, P], axis1=1, axis2=2), 0)),
        last.gravity / np.linalg.norm(last.gravity),
        last.gyro_bias,
        last.accel_bias,
        float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()),
        float(np.sum((speed_std[1:] + speed_std[:-1]) / 2 * np.diff(estimate.times_s))),
        float(np.exp(last.log_scale)) if scaled else None,
        log_scale_std if scaled else None,
        estimate,
    )


def _covering(imu: ImuStream, start_s: float, end_s: float) -> ImuStream:
    if not imu.has_accel:
        raise ImuError(f"{imu.source}: there is no accelerometer; rotations alone need no fusion")
    if imu.times_s[0] > start_s + MAX_UNCOVERED_S or imu.times_s[-1] < end_s - MAX_UNCOVERED_S:
        raise ImuError(
            f"{imu.source} covers {imu.times_s[0]:.2f} to {imu.times_s[-1]:.2f} s on the video's clock, and the clip "
            f"needs {start_s:.2f} to {end_s:.2f} s"
        )
    for gap_start, gap_end in imu.gaps_s:
        if gap_end > start_s and gap_start < end_s and gap_end - gap_start > MAX_PAUSE_S:
            raise ImuError(
                f"{imu.source} pauses from {gap_start:.2f} to {gap_end:.2f} s; up to {MAX_PAUSE_S} s can be bridged"
            )
    return imu
