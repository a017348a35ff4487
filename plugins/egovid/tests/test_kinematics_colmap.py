from __future__ import annotations

import cv2
import numpy as np
import pytest
from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.colmap import ColmapConfig, reconstruct
from planish_egovid.kinematics.pose.intrinsics import Intrinsics
from planish_egovid.kinematics.pose.trajectory import Trajectory
from planish_egovid.kinematics.pose.trajectory_error import absolute_errors
from planish_egovid.testing import HeadMotion, render_clip

pytest.importorskip("pycolmap")
LENS = Intrinsics.of_fov(90, 480, 270)


@pytest.mark.slow
def test_colmap_finds_the_walk_up_to_scale() -> None:
    times = np.arange(9) * 0.29
    clip = render_clip(HeadMotion(), times_s=list(times))
    gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames])
    found = reconstruct(gray, times, LENS, ColmapConfig(max_features=800, overlap=4))
    assert len(found.frames) >= 8
    assert found.error_px < 0.5
    assert not found.trajectory.is_metric
    exact = Trajectory(np.stack([clip.truth.pose(int(i)) for i in found.frames]), times[found.frames])
    errors = absolute_errors(found.trajectory, exact, alignment="similarity")
    assert errors.translation_rmse < 0.01 * exact.path_length()
    assert errors.rotation_rmse_deg < 1


def test_pictures_without_texture_have_no_poses_and_the_process_survives() -> None:
    blank = np.full((4, 120, 160), 128, np.uint8)
    with pytest.raises(PoseError, match="COLMAP"):
        reconstruct(blank, np.arange(4.0), Intrinsics.of_fov(90, 160, 120))


@pytest.mark.parametrize(
    ("lens", "model", "parameters"),
    [
        (LENS, "PINHOLE", 4),
        (Intrinsics.of_fov(126, 480, 270, "fisheye"), "OPENCV_FISHEYE", 8),
        (Intrinsics(240, 240, 239.5, 134.5, 480, 270, "opencv", (0.1, 0, 0, 0)), "OPENCV", 8),
        (Intrinsics(240, 240, 239.5, 134.5, 480, 270, "opencv", (0.1, 0, 0, 0, 0.01)), "FULL_OPENCV", 12),
    ],
)
def test_lenses_are_written_as_colmap_writes_them(lens: Intrinsics, model: str, parameters: int) -> None:
    from planish_egovid.kinematics.pose.colmap import _camera

    name, values = _camera(lens)
    numbers = [float(value) for value in values.split(",")]
    assert name == model
    assert len(numbers) == parameters
    assert numbers[2:4] == [240.0, 135.0]  # pixel centres at halves
