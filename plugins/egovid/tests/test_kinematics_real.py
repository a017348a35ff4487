"""Real recordings, where they are: PLANISH_TEST_DATA names a folder with video/ and poses/."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.filters import Kinematics
from planish_egovid.kinematics.fusion.fuse import fuse_trajectory
from planish_egovid.kinematics.fusion.mounting import estimate_mounting
from planish_egovid.kinematics.fusion.time_offset import estimate_time_offset
from planish_egovid.kinematics.imu.csv_recording import read_imu_csv
from planish_egovid.kinematics.imu.gopro import find_gopro
from planish_egovid.kinematics.imu.gravity import gravity_direction
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.pose import rotation as so3
from planish_egovid.kinematics.pose.interpolation import interpolate
from planish_egovid.kinematics.pose.text_formats import read_kitti, read_tum
from planish_egovid.kinematics.pose.trajectory import Trajectory, compose
from planish_egovid.kinematics.pose.trajectory_error import absolute_errors, in_step, relative_errors
from scipy.signal import savgol_filter

DATA = Path(os.environ.get("PLANISH_TEST_DATA", "/nonexistent"))
GOPRO = DATA / "video" / "max-heromode.mp4"
POSES = DATA / "poses"

needs_gopro = pytest.mark.skipif(not GOPRO.exists(), reason="PLANISH_TEST_DATA names no folder with max-heromode.mp4")
needs_poses = pytest.mark.skipif(
    not (POSES / "freiburg1_xyz-groundtruth.txt").exists(), reason="PLANISH_TEST_DATA names no folder with poses"
)


@needs_gopro
def test_telemetry_of_a_gopro_is_read_from_the_video() -> None:
    found = find_gopro(GOPRO)
    assert found is not None
    assert found.model == "GoPro Max"
    assert found.imu.rate_hz == pytest.approx(197.8, abs=0.1)
    assert len(found.imu.times_s) == 2082
    assert found.imu.gaps_s == []
    assert found.is_stabilised
    gravity = gravity_direction(found.imu)
    assert np.degrees(np.arccos(gravity.direction @ found.gravity[0])) < 5  # as the camera's own fusion says
    assert gravity.measured_m_s2 == pytest.approx(9.81, abs=0.1)
    table = read_imu_csv(POSES / "max-heromode.GYRO.csv")  # made by another program, channels as stored
    assert np.allclose(found.imu.gyro, table.gyro * [-1, 1, -1], atol=1e-5)
    # CORI is the camera's own integration of its gyroscope.
    turns = found.camera_orientation
    rates = -so3.log(turns[1:] @ np.swapaxes(turns[:-1], 1, 2)) / np.diff(found.frame_times_s)[:, None]
    half = 0.5 / 29.97
    means = found.imu.mean_gyro(found.frame_times_s[:-1] + half, found.frame_times_s[1:] + half)
    known = np.isfinite(means).all(axis=1)
    for k in range(3):
        assert np.corrcoef(rates[known, k], means[known, k])[0, 1] > 0.95


@needs_gopro
def test_the_picture_turns_as_the_gyroscope_says() -> None:
    # The lens is not on record; an equidistant 126 degrees is what makes both angular speeds equal.
    options = {"assume_fov_deg": 126, "assume_lens": "fisheye"}
    row = Kinematics(options).score([Clip("gopro", str(GOPRO))])[0].model_dump()
    assert row["error"] is None
    assert row["imu_visual_correlation"] > 0.98
    assert abs(row["imu_time_offset_s"]) < 1 / 30
    assert row["pose_valid_frac"] == 1
    assert row["translation_direction"][2] > 0.95  # forwards
    assert row["path_length_m"] == pytest.approx(13, abs=2)  # the camera's GPS: 12.7 by speed, 13.1 by place


@needs_gopro
def test_the_body_of_a_stabilised_camera_turns_otherwise_than_its_picture() -> None:
    import av
    import cv2
    from planish_egovid.flow.track import track_of
    from planish_egovid.kinematics.pose.intrinsics import Intrinsics
    from planish_egovid.kinematics.pose.visual_motion import visual_motion
    from planish_egovid.video.request import Frames

    with av.open(str(GOPRO)) as container:
        frames = [frame.to_ndarray(format="gray") for k, frame in enumerate(container.decode(video=0)) if k % 4 == 0]
    small = np.stack([cv2.resize(frame, (480, 272), interpolation=cv2.INTER_AREA) for frame in frames])
    track = track_of(Frames(small, np.arange(len(small)) * 4 * 1001 / 30000, 480 / 848))
    visual = visual_motion(track, Intrinsics.of_fov(126, 480, 272, "fisheye"))
    telemetry = find_gopro(GOPRO)
    assert telemetry is not None
    seen = visual.angular_velocities
    starts, ends = visual.times_s[:-1], visual.times_s[1:]
    image = telemetry.imu_of_image().mean_gyro(starts + 0.01, ends + 0.01)
    body = telemetry.imu.mean_gyro(starts + 0.01, ends + 0.01)
    assert np.degrees(np.sqrt(np.nanmean((seen - image) ** 2))) < 1.5
    assert np.degrees(np.sqrt(np.nanmean((seen - body) ** 2))) > 5
    # The lens that was assumed makes both equally fast, and no mounting but the one on record fits.
    assert np.nansum(seen * image) / np.nansum(image**2) == pytest.approx(1, abs=0.05)
    mounting = estimate_mounting(seen, image)
    assert mounting.is_determined
    assert mounting.explained > 0.95
    assert so3.angle_deg(mounting.rotation) < 15
    offset = estimate_time_offset(visual, telemetry.imu_of_image())
    assert offset is not None
    assert offset.is_reliable
    assert offset.offset_s == pytest.approx(0.011, abs=0.02)


@needs_poses
def test_alignment_lowers_the_error_of_a_slam_estimate() -> None:
    truth = read_tum(POSES / "freiburg1_xyz-groundtruth.txt")
    estimate, reference = in_step(read_tum(POSES / "freiburg1_xyz-rgbdslam.txt"), truth)
    raw = absolute_errors(estimate, reference, alignment="none")
    aligned = absolute_errors(estimate, reference, alignment="rigid")
    assert aligned.translation_rmse < 0.8 * raw.translation_rmse
    assert aligned.translation_rmse < 0.02
    drifted, other = in_step(read_tum(POSES / "freiburg1_xyz-rgbdslam_drift.txt"), truth)
    assert absolute_errors(drifted, other, alignment="none").rotation_rmse_deg > 30  # another camera frame


@needs_poses
def test_fusion_smooths_a_real_slam_estimate_and_finds_its_scale() -> None:
    # There is no inertial recording of this walk: readings are derived from the motion capture, the estimate is real.
    truth = read_tum(POSES / "freiburg1_xyz-groundtruth.txt")
    estimate, reference = in_step(read_tum(POSES / "freiburg1_xyz-rgbdslam.txt"), truth)
    start = float(estimate.times_s[0]) + 8
    grid = np.arange(start - 0.5, start + 6.5, 0.01)
    dense = interpolate(truth, grid)
    acceleration = savgol_filter(dense.translations, 25, 4, deriv=2, delta=0.01, axis=0)
    smooth = so3.from_xyzw(savgol_filter(so3.same_signs(so3.to_xyzw(dense.rotations)), 25, 4, axis=0))
    rates = so3.log(np.swapaxes(smooth[:-2], 1, 2) @ smooth[2:]) / 0.02
    force = np.einsum("nji,nj->ni", smooth, acceleration + np.array([0, 0, 9.80665]))
    imu = ImuStream(grid[1:-1] - start, rates, force[1:-1], "from motion capture", axes_are_camera=True)
    window = (estimate.times_s >= start) & (estimate.times_s <= start + 6)
    times = estimate.times_s[window] - start
    visual = Trajectory(estimate.matrices[window], times).scaled(0.5, is_metric=False)
    exact = Trajectory(reference.matrices[window], times, is_metric=True)
    found = fuse_trajectory(visual, imu, position_std=0.005, rotation_std_deg=0.5)
    before = absolute_errors(visual, exact, alignment="similarity")
    after = absolute_errors(found.trajectory, exact, alignment="similarity")
    assert after.translation_rmse < 0.85 * before.translation_rmse
    assert found.scale == pytest.approx(2, rel=0.1)
    jitter = relative_errors(visual.scaled(2, is_metric=True), exact, step=5).translation_rmse
    assert relative_errors(found.trajectory, exact, step=5).translation_rmse < 0.5 * jitter


@needs_poses
def test_kitti_poses_are_read() -> None:
    car = read_kitti(POSES / "KITTI_00_gt.txt", POSES / "KITTI_00_gt_times.txt")
    assert len(car) == 4541
    assert car.path_length() == pytest.approx(3724, abs=1)
    shifted = car.transformed(compose(so3.exp(np.array([0.1, 2, 0.3])), np.array([1.0, 2, 3])))
    assert relative_errors(shifted, car, step=10).translation_rmse < 1e-8
    Trajectory(car.matrices, car.times_s)
