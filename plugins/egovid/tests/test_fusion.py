from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from planish_egovid.kinematics.errors import ImuError
from planish_egovid.kinematics.fusion.fuse import fuse_motion, fuse_trajectory
from planish_egovid.kinematics.fusion.measurement import (
    Attitude,
    Measurement,
    RelativeRotation,
    ScaledPosition,
    TranslationDirection,
)
from planish_egovid.kinematics.fusion.mounting import estimate_mounting
from planish_egovid.kinematics.fusion.propagation import ImuNoise, propagate
from planish_egovid.kinematics.fusion.smoother import Epoch, estimate_states
from planish_egovid.kinematics.fusion.state import (
    BA,
    BG,
    CLONING,
    INERTIAL,
    SIZE,
    TH,
    G,
    NavigationState,
    P,
    S,
    V,
    gravity_rotation_of,
)  # fmt: skip
from planish_egovid.kinematics.fusion.time_offset import estimate_time_offset
from planish_egovid.kinematics.imu.gravity import STANDARD_GRAVITY
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.pose import rotation as so3
from planish_egovid.kinematics.pose.epipolar_fit import tangent_basis
from planish_egovid.kinematics.pose.trajectory import Trajectory, compose
from planish_egovid.kinematics.pose.trajectory_error import absolute_errors
from planish_egovid.kinematics.pose.two_view import RelativePose
from planish_egovid.kinematics.pose.visual_motion import VisualMotion
from planish_egovid.testing import HeadMotion, Swing, simulate_imu
from planish_egovid.testing.head_motion import GRAVITY_M_S2
from scipy.stats import chi2

HEAD = HeadMotion()
BOUNCY = replace(HEAD, bob_m=Swing(0.08, 1.8))
GYRO_BIAS, ACCEL_BIAS = (0.01, -0.02, 0.005), (0.05, -0.03, 0.1)


def imu_of(
    motion: HeadMotion = HEAD,
    duration_s: float = 4.0,
    *,
    noisy: bool = True,
    rate: float = 200.0,
    offset: float = 0.0,
    seed: int = 0,
) -> ImuStream:
    made = simulate_imu(
        motion,
        duration_s,
        rate_hz=rate,
        gyro_bias_rad_s=GYRO_BIAS if noisy else (0, 0, 0),
        accel_bias_m_s2=ACCEL_BIAS if noisy else (0, 0, 0),
        accel_noise_m_s2=0.02 * rate**0.5 if noisy else 0.0,
        gyro_noise_rad_s=0.002 * rate**0.5 if noisy else 0.0,
        time_offset_s=offset,
        seed=seed,
    )
    return ImuStream(made.times_s, made.gyro_rad_s, made.accel_m_s2, "simulated", axes_are_camera=True)


def seen(
    motion: HeadMotion,
    times: np.ndarray,
    *,
    rotation_std: float = 0.001,
    direction_std: float = 0.02,
    seed: int = 0,
    directions: bool = True,
) -> VisualMotion:
    """Return pairwise motion as a camera would see it, with known errors."""
    rng = np.random.default_rng(seed)
    pairs: list[RelativePose] = []
    for start, end in pairwise(times):
        relative = np.linalg.inv(motion.pose(end)) @ motion.pose(start)
        direction = relative[:3, 3] / max(np.linalg.norm(relative[:3, 3]), 1e-12)
        basis = tangent_basis(direction) if directions else np.zeros((3, 2))
        noisy = direction + basis @ (direction_std * rng.standard_normal(2))
        pairs.append(
            RelativePose(
                so3.exp(rotation_std * rng.standard_normal(3)) @ relative[:3, :3],
                noisy / np.linalg.norm(noisy) if directions else None,
                rotation_std**2 * np.eye(3),
                direction_std**2 * basis @ basis.T if directions else None,
                5.0,
                1.0,
                1000,
                "essential",
            )
        )
    return VisualMotion(times, pairs)


FRAMES = np.arange(30) * 4 / 30


@pytest.mark.parametrize("offset", [-1.0, -0.437, 0.0, 0.25, 0.99])
def test_the_time_offset_is_found_to_a_frame(offset: float) -> None:
    # The motion of the whole recording is longer than the clip and not periodic within the range that is searched.
    motion = replace(HEAD, yaw_deg=Swing(20, 0.23), pitch_deg=Swing(8, 0.61, 0.4), roll_deg=Swing(5, 0.97, 1.0))
    made = imu_of(motion, 9.0)
    times = FRAMES + 2.5  # the clip lies within the recording
    shifted = made.shifted(offset)
    found = estimate_time_offset(seen(motion, times), shifted)
    assert found is not None
    assert found.is_reliable
    assert found.offset_s == pytest.approx(offset, abs=1 / 60)
    assert found.correlation > 0.95
    # The axes of the sensor do not matter.
    turned = shifted.rotated(so3.exp(np.array([1.0, 2, -0.5])), axes_are_camera=False)
    again = estimate_time_offset(seen(motion, times), turned)
    assert again is not None
    assert again.offset_s == pytest.approx(found.offset_s, abs=1e-6)


def test_an_offset_that_nothing_tells_is_not_claimed() -> None:
    assert estimate_time_offset(seen(HeadMotion.still(), FRAMES, rotation_std=0.0, directions=False), imu_of()) is None
    other = replace(HEAD, yaw_deg=Swing(20, 0.9), pitch_deg=Swing(9, 1.3, 2.0), roll_deg=Swing(1, 0.2))
    unrelated = estimate_time_offset(seen(HEAD, FRAMES), imu_of(other, 8.0).shifted(-2))
    assert unrelated is None or not unrelated.is_reliable or unrelated.correlation < 0.8
    outside = estimate_time_offset(seen(HEAD, FRAMES), imu_of(HEAD, 4.0).shifted(50))
    assert outside is None
    wide = estimate_time_offset(seen(HEAD, FRAMES + 3), imu_of(HEAD, 10.0).shifted(0.6), max_offset_s=0.3)
    assert wide is None or not wide.is_reliable  # the peak lies outside what was searched


def test_the_mounting_is_found_from_angular_velocities() -> None:
    turn = so3.exp(np.array([0.5, -1.4, 2.0]))
    times = np.linspace(0, 4, 31)
    rates = imu_of(noisy=False).mean_gyro(times[:-1], times[1:])
    noisy = rates + 0.02 * np.random.default_rng(0).standard_normal(rates.shape)
    found = estimate_mounting(noisy, rates @ turn)  # sensor = turn.T camera
    assert found.is_determined
    assert so3.angle_deg(found.rotation @ turn.T) < 5
    assert found.explained > 0.9
    assert estimate_mounting(noisy[:2], rates[:2]).is_determined is False


def test_turning_about_one_axis_leaves_only_mountings_along_the_axes() -> None:
    rates = np.zeros((40, 3))
    rates[:, 1] = np.sin(np.arange(40) / 3)
    found = estimate_mounting(rates, rates[:, [1, 2, 0]])
    assert not found.is_determined  # four mountings explain it equally
    assert np.allclose(found.rotation @ [1, 0, 0], [0, 1, 0])


def state() -> NavigationState:
    return NavigationState(
        np.array([1.0, -2, 0.5]), np.array([0.4, 0.1, -0.6]), so3.exp(np.array([0.3, -0.8, 0.2])), np.array(GYRO_BIAS),
        np.array(ACCEL_BIAS), gravity_rotation_of(np.array([0.1, 0.9, 0.2])), 0.4, np.array([0.9, -2.1, 0.45]),
        so3.exp(np.array([0.28, -0.7, 0.15])),
    )  # fmt: skip


def test_errors_can_be_added_and_taken_away() -> None:
    error = 0.1 * np.random.default_rng(0).standard_normal(SIZE)
    assert np.allclose(state().plus(error).minus(state()), error, atol=1e-12)
    assert np.linalg.norm(state().gravity) == pytest.approx(STANDARD_GRAVITY)
    about_gravity = replace(state(), gravity_rotation=state().gravity_rotation @ so3.exp(np.array([0, 0, 0.7])))
    assert np.abs(about_gravity.minus(state())).max() < 1e-12  # two degrees of freedom, not three
    for down in ([0, 0, 1.0], [0, 0, -1.0], [0, 1.0, 0]):
        assert np.allclose(gravity_rotation_of(np.array(down))[:, 2], down)


def test_transition_and_jacobians_are_derivatives() -> None:
    imu = imu_of(rate=100.0)
    span = slice(20, 35)
    arguments = (imu.times_s[span], imu.gyro[span], imu.accel[span], ImuNoise())
    there, covariance, transition = propagate(state(), np.eye(SIZE) * 1e-6, *arguments)
    assert np.allclose(covariance, covariance.T)
    delta = 1e-5
    for k, axis in enumerate(np.eye(SIZE)):
        moved = propagate(state().plus(delta * axis), np.eye(SIZE), *arguments)[0]
        assert np.allclose(moved.minus(there) / delta, transition[:, k], atol=2e-3), k
    spread = 1e-4 * np.eye(SIZE)
    direction = np.array([0.1, -0.2, 0.97])
    measured: list[Measurement] = [
        RelativeRotation(so3.exp(np.array([0.01, 0.02, 0.0])), np.eye(3)),
        TranslationDirection(direction / np.linalg.norm(direction), np.eye(3)),
        ScaledPosition(np.array([0.5, -1, 0.2]), np.eye(3)),
        Attitude(so3.exp(np.array([0.31, -0.79, 0.2])), np.eye(3)),
    ]
    for measurement in measured:
        at = measurement.linearised(state(), spread)
        for k, axis in enumerate(np.eye(SIZE)):
            moved_residual = measurement.linearised(state().plus(delta * axis), spread).residual
            slope = -(moved_residual - at.residual) / delta
            assert np.allclose(slope, at.jacobian[:, k], atol=2e-3), (type(measurement).__name__, k)


DEVIATION = np.zeros(SIZE)
DEVIATION[P], DEVIATION[V], DEVIATION[TH], DEVIATION[BG] = 0.01, 0.2, 0.01, 0.01
DEVIATION[BA], DEVIATION[G], DEVIATION[S] = 0.05, 0.05, 0.2
SCALE = 1.7


def truth(time: float) -> NavigationState:
    return NavigationState(
        HEAD.position(time), HEAD.velocity(time), HEAD.rotation(time), np.array(GYRO_BIAS), np.array(ACCEL_BIAS),
        gravity_rotation_of(GRAVITY_M_S2), float(np.log(SCALE)),
    )  # fmt: skip


def run(seed: int, *, absolute: bool) -> tuple[list[float], tuple[float, float, float]]:
    """Return NEES / 15 half way and at the end, smoothed; and the position errors of filter, smoother, vision."""
    rng = np.random.default_rng(seed)
    times = np.arange(0, 2.01, 0.1)
    start = truth(0).plus(DEVIATION * rng.standard_normal(SIZE)).cloned()
    covariance = CLONING @ np.diag(DEVIATION**2) @ CLONING.T
    motion = seen(HEAD, times, rotation_std=0.003, direction_std=0.05, seed=seed + 1000)
    epochs, vision = [], []
    for k, time in enumerate(times):
        measurements: list[Measurement] = []
        noisy = HEAD.position(time) / SCALE + 0.02 * rng.standard_normal(3)
        vision.append(float(np.sum((noisy * SCALE - HEAD.position(time)) ** 2)))
        if k and absolute:
            turned = HEAD.rotation(time) @ so3.exp(0.01 * rng.standard_normal(3))
            measurements = [ScaledPosition(noisy, 4e-4 * np.eye(3)), Attitude(turned, 1e-4 * np.eye(3))]
        elif k:
            pair = motion.pairs[k - 1]
            assert pair is not None
            assert pair.translation is not None
            assert pair.translation_covariance is not None
            measurements = [
                RelativeRotation(pair.rotation, pair.rotation_covariance),
                TranslationDirection(pair.translation, pair.translation_covariance),
            ]
        epochs.append(Epoch(float(time), measurements, True))
    noise = ImuNoise(gyro_walk=1e-7, accel_walk=1e-7)
    found = estimate_states(start, covariance, imu_of(HEAD, 2.05, rate=100.0, seed=seed), epochs, noise, rounds=3)
    nees = []
    for k in (len(times) // 2, len(times) - 1):
        error = truth(times[k]).minus(found.smoothed[k])[INERTIAL]
        nees.append(float(error @ np.linalg.solve(found.smoothed_covariance[k][INERTIAL, INERTIAL], error)))
    alone = (
        estimate_states(
            start,
            covariance,
            imu_of(HEAD, 2.05, rate=100.0, seed=seed),
            [replace(e, measurements=()) for e in epochs],
            noise,
        )
        if seed == 0
        else None
    )

    def rmse(states: object) -> float:
        squared = [np.sum((s.position - HEAD.position(t)) ** 2) for s, t in zip(states, times, strict=True)]  # type: ignore[call-overload]
        return float(np.sqrt(np.mean(squared)))

    imu_only = rmse(alone.smoothed) if alone else float("nan")
    return nees, (imu_only, rmse(found.smoothed), float(np.sqrt(np.mean(vision))))


@pytest.mark.parametrize("absolute", [True, False], ids=["poses", "pairs"])
def test_the_smoother_is_consistent_over_50_seeds(absolute: bool) -> None:
    results = [run(seed, absolute=absolute) for seed in range(50)]
    low, high = chi2.ppf([0.025, 0.975], 15 * 50) / 50
    for k in range(2):
        assert low <= np.mean([nees[k] for nees, _ in results]) <= high
    imu_only, fused, _ = results[0][1]
    assert fused < imu_only
    if absolute:
        assert np.mean([rmse[1] for _, rmse in results]) < 0.8 * np.mean([rmse[2] for _, rmse in results])


def visual_trajectory(
    motion: HeadMotion, *, scale: float, position_std: float, rotation_std: float, seed: int = 0
) -> tuple[Trajectory, Trajectory]:
    rng = np.random.default_rng(seed)
    poses = np.stack([motion.pose(t) for t in FRAMES])
    rotations = poses[:, :3, :3] @ so3.exp(rotation_std * rng.standard_normal((len(FRAMES), 3)))
    centres = poses[:, :3, 3] / scale + position_std * rng.standard_normal((len(FRAMES), 3))
    return Trajectory(compose(rotations, centres), FRAMES), Trajectory(poses, FRAMES, is_metric=True)


@pytest.mark.parametrize("scale", [0.05, 2.5, 40.0])
def test_metric_scale_is_right_to_5_percent_without_noise_in_the_imu(scale: float) -> None:
    for seed in range(3):
        visual, exact = visual_trajectory(
            BOUNCY, scale=scale, position_std=0.004 / scale, rotation_std=0.003, seed=seed
        )
        found = fuse_trajectory(visual, imu_of(BOUNCY, noisy=False), position_std=0.004 / scale, rotation_std_deg=0.17)
        assert found.scale == pytest.approx(scale, rel=0.05)
        assert found.scale_std is not None
        assert abs(np.log(found.scale / scale)) < 4 * found.scale_std
        assert found.path_length_m == pytest.approx(exact.path_length(), rel=0.1)
        assert found.trajectory.is_metric
        assert not visual.is_metric


def test_fusion_beats_the_picture_and_the_imu_alone() -> None:
    fused_rmse, visual_rmse = [], []
    for seed in range(3):
        visual, exact = visual_trajectory(BOUNCY, scale=2.5, position_std=0.016, rotation_std=0.01, seed=seed)
        found = fuse_trajectory(visual, imu_of(BOUNCY, seed=seed), position_std=0.016, rotation_std_deg=0.57)
        fused_rmse.append(absolute_errors(found.trajectory, exact, alignment="similarity").translation_rmse)
        visual_rmse.append(absolute_errors(visual, exact, alignment="similarity").translation_rmse)
        metric = absolute_errors(found.trajectory, exact, alignment="rigid").translation_rmse
        assert metric < 0.2
        error = np.array(found.accel_bias) - ACCEL_BIAS
        assert np.linalg.norm(error) < 0.2
    assert np.mean(fused_rmse) < 0.75 * np.mean(visual_rmse)


def test_pairs_and_imu_give_a_path_in_metres_at_every_frame() -> None:
    times = np.arange(0, FRAMES[-1] + 1e-9, 1 / 30)
    found = fuse_motion(seen(HEAD, FRAMES), imu_of(), times_s=times)
    assert len(found.trajectory) == len(times)
    exact = Trajectory(np.stack([HEAD.pose(t) for t in times]), times, is_metric=True).rebased()
    errors = absolute_errors(found.trajectory, exact, alignment="none")
    assert errors.translation[-1] < 4 * found.position_std_m[-1]
    assert errors.translation_rmse < 0.15
    assert errors.rotation_rmse_deg < 0.5
    assert found.path_length_m == pytest.approx(exact.path_length(), rel=0.1)
    assert np.allclose(found.gyro_bias, GYRO_BIAS, atol=0.004)
    assert np.degrees(np.arccos(found.gravity @ HEAD.rotation(0).T @ [0, 1, 0])) < 2
    assert found.scale is None  # pairs have no unit of length


def test_quaternion_signs_and_world_frames_change_nothing() -> None:
    visual, _ = visual_trajectory(BOUNCY, scale=2.5, position_std=0.004, rotation_std=0.003)
    q = so3.to_xyzw(visual.rotations) * np.where(np.arange(30) % 2, -1.0, 1.0)[:, None]
    flipped = Trajectory(compose(so3.from_xyzw(q), visual.translations), visual.times_s)
    moved = visual.transformed(compose(so3.exp(np.array([0.3, 1.0, -2.0])), np.array([3.0, -1, 7])))
    options = {"position_std": 0.004, "rotation_std_deg": 0.17}
    base = fuse_trajectory(visual, imu_of(BOUNCY), **options)
    for other in (flipped, moved):
        found = fuse_trajectory(other, imu_of(BOUNCY), **options)
        assert found.scale == pytest.approx(base.scale, rel=1e-3)
        difference = found.trajectory.rebased().matrices - base.trajectory.rebased().matrices
        assert np.abs(difference).max() < 2e-3


def test_what_cannot_be_fused_is_said() -> None:
    visual = seen(HEAD, FRAMES)
    with pytest.raises(ImuError, match=r"covers 0\.00 to 2.00 s"):
        fuse_motion(visual, imu_of(HEAD, 2.0))
    whole = imu_of()
    keep = (whole.times_s < 1) | (whole.times_s > 1.8)
    with pytest.raises(ImuError, match="pauses from"):
        fuse_motion(visual, ImuStream(whole.times_s[keep], whole.gyro[keep], whole.accel[keep], "x"))
    with pytest.raises(ImuError, match="no accelerometer"):
        fuse_motion(visual, replace(whole, accel=np.full_like(whole.accel, np.nan)))
    with pytest.raises(ImuError, match="poses are wanted"):
        fuse_motion(visual, whole, times_s=np.array([0.0, 9.0]))


def test_a_walk_without_acceleration_has_no_scale() -> None:
    even = HeadMotion.walking((0.2, 0, 0.5))
    visual, _ = visual_trajectory(even, scale=2.5, position_std=0.004, rotation_std=0.003)
    with pytest.raises(ImuError, match="does not tell the scale"):
        fuse_trajectory(visual, imu_of(even), position_std=0.004, rotation_std_deg=0.17)
