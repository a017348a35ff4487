from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from planish.errors import ConfigError, DataError, WorkError
from planish.interfaces import Clip
from planish_egovid.kinematics.annotate import annotate
from planish_egovid.kinematics.pose import rotation as so3
from planish_egovid.kinematics.pose.external import read_pose_array
from planish_egovid.kinematics.pose.trajectory import Trajectory
from planish_egovid.testing import HeadMotion, render_clip, simulate_imu, write_video

MOTION = HeadMotion(velocity_m_s=(0.2, 0.0, 0.5))
FRAMES = 75


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotate")
    write_video(folder / "room.mp4", render_clip(MOTION, frames=FRAMES).frames)
    imu = simulate_imu(MOTION, 5.0, accel_noise_m_s2=0.2, gyro_noise_rad_s=0.02)
    table = np.concatenate([imu.times_s[:, None] * 1e3, imu.gyro_rad_s, imu.accel_m_s2], axis=1)
    header = "canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z\n"
    (folder / "imu.csv").write_text(header + "\n".join(",".join(map(str, row)) for row in table.tolist()) + "\n")
    return folder


def clip(made: Path, **extra: object) -> Clip:
    return Clip(
        "abc_0_75.mp4",
        str(made / "room.mp4"),
        extra={"intrinsics": np.array([[240, 0, 239.5], [0, 240, 134.5], [0, 0, 1]]).tolist(), **extra},
    )


def truth() -> np.ndarray:
    poses = np.stack([MOTION.pose(k / 30) for k in range(FRAMES)])
    return np.asarray(np.linalg.inv(poses[0]) @ poses)


def test_the_released_layout_is_written(made: Path, tmp_path: Path) -> None:
    done = annotate(clip(made, imu=str(made / "imu.csv"), imu_to_camera=np.eye(3).tolist()), tmp_path)
    assert done.folder == tmp_path / "poses" / "abc_0_75"
    assert done.files == (
        "fused_pose.npy", "imu_pose.npy", "intri.npy", "kinematics.json", "kinematics.npz", "sfm_pose.npy",
    )  # fmt: skip
    assert done.columns["kinematics_reason"] is None
    for name, has_places in (("fused_pose", True), ("sfm_pose", False), ("imu_pose", False)):
        found = read_pose_array(done.folder / f"{name}.npy", fps=30, frames=FRAMES)
        assert np.allclose(found.matrices[0][:3, :3], np.eye(3), atol=1e-9)
        assert found.has_translations is has_places
        if not has_places:
            assert np.isnan(found.translations).all()  # unknown, not 0
        assert so3.angle_deg(np.swapaxes(found.rotations, 1, 2) @ truth()[:, :3, :3]).max() < 1.0, name
    places = np.load(done.folder / "fused_pose.npy")[:, :3, 3]
    assert np.linalg.norm(places - truth()[:, :3, 3], axis=1).max() < 0.35
    assert np.allclose(np.load(done.folder / "intri.npy"), [[240, 0, 239.5], [0, 240, 134.5], [0, 0, 1]])
    about = json.loads((done.folder / "kinematics.json").read_text())
    assert about["convention"] == "c2w"
    assert about["frames"] == FRAMES
    detail = np.load(done.folder / "kinematics.npz")
    assert detail["pair_rotation_covariance"].shape == (len(detail["pair_times_s"]) - 1, 3, 3)
    assert detail["fused_position_std_m"][0] == 0


def test_without_an_imu_there_is_no_path_and_no_fused_file(made: Path, tmp_path: Path) -> None:
    done = annotate(clip(made), tmp_path)
    assert done.files == ("intri.npy", "kinematics.json", "kinematics.npz", "sfm_pose.npy")
    again = annotate(clip(made), tmp_path)  # replaces, and leaves nothing else behind
    assert again.files == done.files
    assert [path.name for path in (tmp_path / "poses").iterdir()] == ["abc_0_75"]
    bare = annotate(Clip("x/y z", str(made / "room.mp4")), tmp_path)
    assert bare.folder.name == "x_y_z"
    assert bare.files == ("kinematics.json", "kinematics.npz")
    assert "has no intrinsics" in bare.columns["kinematics_reason"]


def test_official_compatibility_writes_the_published_cost(made: Path, tmp_path: Path) -> None:
    poses = np.stack([MOTION.pose(k / 30) for k in range(FRAMES)])
    poses[:, :3, 3] /= 2
    np.save(tmp_path / "sfm.npy", poses)
    extra = {"imu": str(made / "imu.csv"), "imu_to_camera": np.eye(3).tolist(), "poses": str(tmp_path / "sfm.npy")}
    done = annotate(clip(made, **extra), tmp_path, {"visual": "files", "compat": "official"})
    assert "cost.txt" in done.files
    assert float((done.folder / "cost.txt").read_text()) > 0
    assert "+official" in done.columns["kinematics_backend"]
    Trajectory(np.load(done.folder / "fused_pose.npy"), np.arange(FRAMES) / 30)
    # The published spreading moves the pose of frame 70 to frame 74, ours does not.
    sfm = np.load(done.folder / "sfm_pose.npy")
    assert so3.angle_deg(sfm[-1, :3, :3] @ truth()[70, :3, :3].T) < 0.1
    without = annotate(clip(made), tmp_path, {"compat": "official"})
    assert "needs a visual trajectory" in without.columns["kinematics_reason"]
    assert "fused_pose.npy" not in without.files


def test_what_cannot_be_annotated_is_said(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        annotate(Clip("a", str(tmp_path / "none.mp4")), tmp_path)
    with pytest.raises(ConfigError, match="assume_fov"):
        annotate(clip(made), tmp_path, {"assume_fov": 90})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkError, match="cannot be written"):
        annotate(clip(made), tmp_path / "file")
