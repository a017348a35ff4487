"""The published fusion, and that ours has none of the seven faults known of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planish_egovid.kinematics.errors import ImuError, PoseError
from planish_egovid.kinematics.fusion.fuse import fuse_trajectory
from planish_egovid.kinematics.imu.gravity import integrated_rotations
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.official import (
    fuse_official,
    integrate_positions,
    spread_poses,
    without_drift,
    without_gravity,
)
from planish_egovid.kinematics.pose import rotation as so3
from planish_egovid.kinematics.pose.external import read_pose_folder
from planish_egovid.kinematics.pose.interpolation import every_frame
from planish_egovid.kinematics.pose.intrinsics import Intrinsics
from planish_egovid.kinematics.pose.trajectory import Trajectory, compose
from planish_egovid.kinematics.pose.two_view import relative_pose
from planish_egovid.testing import HeadMotion, Swing, simulate_imu

FPS, FRAMES = 30.0, 120
HEAD = HeadMotion(bob_m=Swing(0.08, 1.8))


def sfm(scale: float = 2.0) -> np.ndarray:
    poses = np.stack([HEAD.pose(5 * k / FPS) for k in range(24)])
    poses[:, :3, 3] /= scale
    return np.linalg.inv(poses[0]) @ poses


def at_frame_rate(motion: HeadMotion = HEAD) -> ImuStream:
    made = simulate_imu(motion, (FRAMES - 1) / FPS, rate_hz=FPS)
    return ImuStream(made.times_s, made.gyro_rad_s, made.accel_m_s2, "frame columns", axes_are_camera=True)


def fused(poses: np.ndarray) -> np.ndarray:
    imu = at_frame_rate()
    return fuse_official(poses, imu.gyro, imu.accel, fps=FPS).fused.matrices


def test_the_published_script_gives_what_it_should_save() -> None:
    imu = at_frame_rate()
    found = fuse_official(sfm(), imu.gyro, imu.accel, fps=FPS)
    for trajectory in (found.fused, found.sfm, found.imu):
        assert trajectory.matrices.shape == (FRAMES, 4, 4)
    assert found.cost > 0
    assert found.is_accepted == (found.cost <= 50)
    assert np.allclose(found.sfm.matrices[0], np.eye(4))
    assert np.allclose(found.sfm.translations * found.scale, spread_poses(sfm())[:, :3, 3])


def test_fault_1_poses_are_stretched_to_the_last_frame_only_by_the_published_script() -> None:
    official, (ours, _) = spread_poses(sfm()), every_frame(sfm())
    assert np.allclose(official[-1], sfm()[-1], atol=1e-9)  # the pose of frame 115 stands at frame 119
    truth = np.linalg.inv(HEAD.pose(0)) @ HEAD.pose(115 / FPS)
    assert so3.angle_deg(ours.rotations[115] @ truth[:3, :3].T) < 1e-4
    assert so3.angle_deg(official[115, :3, :3] @ truth[:3, :3].T) > 1.0


def test_fault_2_slow_turns_survive_in_ours_only() -> None:
    slow = HeadMotion.spinning(15)
    imu = at_frame_rate(slow)
    assert np.abs(without_drift(imu.gyro, FPS)).max() < 0.2 * np.radians(15)
    turned = so3.angle_deg(integrated_rotations(imu)[-1])
    assert turned == pytest.approx(15 * (FRAMES - 1) / FPS, abs=0.5)


def test_fault_3_the_order_of_a_folder_does_not_matter(tmp_path: Path) -> None:
    for k in (10, 9, 0, 2, 1, 11, *range(3, 9)):
        np.savetxt(tmp_path / f"{k}.txt", sfm()[k])
    as_text = [int(path.stem) for path in sorted(tmp_path.iterdir(), key=lambda path: path.name)]
    assert as_text[:3] == [0, 1, 10]  # even sorted as text it would be wrong
    assert np.allclose(read_pose_folder(tmp_path, fps=FPS, step=5).matrices, sfm()[:12])


def test_fault_4_quaternion_orders_are_not_mixed_up() -> None:
    matrices = sfm()[:, :3, :3]
    assert np.allclose(so3.from_xyzw(so3.to_xyzw(matrices)), matrices)
    assert np.allclose(so3.from_wxyz(so3.to_wxyz(matrices)), matrices)
    assert np.allclose(so3.to_wxyz(matrices), so3.to_xyzw(matrices)[:, [3, 0, 1, 2]])


def test_fault_5_signs_of_quaternions_disturb_only_the_published_filter() -> None:
    # A head that turns beyond half a turn makes scipy's quaternions change their sign on the way.
    spin = HeadMotion(yaw_deg=Swing(0, 1), spin_deg_s=100, bob_m=Swing(0.08, 1.8), velocity_m_s=(0, 0, 0.2))
    exact = np.stack([spin.pose(k / FPS) for k in range(FRAMES)])
    exact = np.linalg.inv(exact[0]) @ exact
    quaternions = so3.to_xyzw(exact[::5, :3, :3])
    assert (np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0).any()
    imu = at_frame_rate(spin)
    official = fuse_official(exact[::5], imu.gyro, imu.accel, fps=FPS).fused
    assert so3.angle_deg(np.swapaxes(official.rotations, 1, 2) @ exact[:, :3, :3]).max() > 45
    times = np.arange(0, FRAMES, 5) / FPS
    fine = simulate_imu(spin, 4.0)
    stream = ImuStream(fine.times_s, fine.gyro_rad_s, fine.accel_m_s2, "x", axes_are_camera=True)
    ours = fuse_trajectory(Trajectory(exact[::5], times), stream, position_std=0.003, rotation_std_deg=0.1)
    assert so3.angle_deg(np.swapaxes(ours.trajectory.rotations, 1, 2) @ exact[::5, :3, :3]).max() < 1
    # The zero quaternion of its start shows in the first frames: a tenth of the weight is missing.
    assert np.abs(fused(sfm())[0, :3, 3]).max() < 0.05


def test_fault_6_a_scale_is_positive_or_there_is_none() -> None:
    mirrored = sfm()
    mirrored[:, :3, 3] *= -1  # what fits only with a negative scale, up to a half turn
    exact = np.stack([HEAD.pose(5 * k / FPS) for k in range(24)])
    times = np.arange(24) * 5 / FPS
    fine = simulate_imu(HEAD, 4.0)
    stream = ImuStream(fine.times_s, fine.gyro_rad_s, fine.accel_m_s2, "x", axes_are_camera=True)
    wrong = Trajectory(compose(exact[:, :3, :3], -exact[:, :3, 3] / 2), times)
    with pytest.raises(ImuError, match="does not tell the scale"):
        fuse_trajectory(wrong, stream, position_std=0.003, rotation_std_deg=0.1)
    right = Trajectory(compose(exact[:, :3, :3], exact[:, :3, 3] / 2), times)
    assert fuse_trajectory(right, stream, position_std=0.003, rotation_std_deg=0.1).scale == pytest.approx(2, rel=0.05)


def test_fault_7_distortion_is_taken_out() -> None:
    lens = Intrinsics(200, 200, 239.5, 134.5, 480, 270, "opencv", (-0.22, 0.05, 0.0, 0.0))
    rng = np.random.default_rng(0)
    first = rng.uniform([20, 10], [460, 260], (900, 2))
    rays = lens.rays(first)
    turn = so3.exp(np.radians([3.0, -8.0, 2.0]))
    points = rays * rng.uniform(2, 8, 900)[:, None]
    second = lens.project(points @ turn.T + [0.3, 0, 0])
    seen = np.isfinite(rays).all(axis=1) & np.isfinite(second).all(axis=1)
    with_lens = relative_pose(first[seen], second[seen], lens)
    pinhole = relative_pose(first[seen], second[seen], Intrinsics(200, 200, 239.5, 134.5, 480, 270))
    assert with_lens is not None
    assert pinhole is not None
    assert so3.angle_deg(with_lens.rotation @ turn.T) < 0.02
    assert so3.angle_deg(pinhole.rotation @ turn.T) > 0.3


def test_its_parts_do_what_the_script_says() -> None:
    accel = np.tile([0.0, -9.8, 0.0], (FRAMES, 1))
    assert np.abs(without_gravity(accel, FPS)).max() < 1e-9
    even = integrate_positions(np.zeros((FRAMES, 3)), np.array([1.0, 0, 0]), 1 / FPS)
    assert even[-1, 0] == pytest.approx((FRAMES - 1) / FPS)
    falling = integrate_positions(np.tile([0, 2.0, 0], (FRAMES, 1)), np.zeros(3), 1 / FPS)
    assert falling[-1, 1] == pytest.approx(((FRAMES - 1) / FPS) ** 2, rel=1e-6)
    with pytest.raises(ImuError, match="F >= 20"):
        fuse_official(sfm(), np.zeros((9, 3)), np.zeros((9, 3)))
    with pytest.raises(PoseError, match="shape"):
        fuse_official(sfm()[:, :3], np.zeros((120, 3)), np.zeros((120, 3)))
