from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from planish.errors import ConfigError, UnsupportedError
from planish.interfaces import Clip
from planish_egovid.filters import Kinematics
from planish_egovid.kinematics.axis import KinematicsAxis
from planish_egovid.kinematics.config import KinematicsConfig
from planish_egovid.kinematics.trajectory_plot import euler_deg
from planish_egovid.testing import HeadMotion, RenderedClip, Room, render_clip, simulate_imu, write_video
from planish_egovid.testing.memory_view import view_of

FOV = {"assume_fov_deg": 90}
COLUMNS = "canonical_timestamp_ms,gyro_x,gyro_y,gyro_z,accl_x,accl_y,accl_z"
MOTION = replace(HeadMotion(), velocity_m_s=(0.2, 0.0, 0.5))


@lru_cache(maxsize=2)
def clip(frames: int = 26) -> RenderedClip:
    """Return frames 4/30 s apart: what the axis looks at, and no more."""
    return render_clip(MOTION, times_s=[k * 4 / 30 for k in range(frames)])


def imu_csv(path: Path, *, offset_s: float = 0.0, axes: np.ndarray | None = None, duration_s: float = 7.0) -> str:
    """Write a recording that begins 1.5 s before the clip's time 0; the motion goes on beyond the clip."""
    made = simulate_imu(MOTION, duration_s, accel_noise_m_s2=0.2, gyro_noise_rad_s=0.02)
    turn = np.eye(3) if axes is None else axes
    table = np.concatenate(
        [(made.times_s[:, None] + offset_s) * 1e3, made.gyro_rad_s @ turn.T, made.accel_m_s2 @ turn.T], axis=1
    )
    path.write_text(COLUMNS + "\n" + "\n".join(",".join(f"{value:.9g}" for value in row) for row in table) + "\n")
    return str(path)


def measured(extra: dict[str, object] | None = None, **options: object) -> dict[str, object]:
    axis = KinematicsAxis(KinematicsConfig.model_validate({**FOV, **options}))
    rendered = clip()
    view = view_of(rendered.frames, axis, times_s=rendered.times_s, clip=Clip("c", "memory.mp4", extra=extra or {}))
    return axis.measure(view)


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planish_egovid.kinematics.recording.find_gopro", lambda path: None)


def test_rotation_and_direction_of_a_room() -> None:
    row = measured()
    times = np.array(clip().times_s)
    speeds = [np.degrees(np.linalg.norm(MOTION.body_rates(t))) for t in (times[1:] + times[:-1]) / 2]
    assert row["rotation_speed_mean_deg_s"] == pytest.approx(np.mean(speeds), rel=0.05)
    assert row["rotation_speed_max_deg_s"] == pytest.approx(np.max(speeds), rel=0.05)
    assert row["rotation_total_deg"] == pytest.approx(np.mean(speeds) * times[-1], rel=0.05)
    assert row["rotation_source"] == "picture"
    direction = np.array(row["translation_direction"])
    assert np.linalg.norm(direction) == pytest.approx(1)
    truth = np.mean([MOTION.rotation(t).T @ MOTION.velocity(t) for t in times], axis=0)
    assert np.degrees(np.arccos(direction @ truth / np.linalg.norm(truth))) < 8
    assert row["parallax_px"] > 1  # type: ignore[operator]
    assert row["pose_inlier_frac"] > 0.8  # type: ignore[operator]
    assert row["pose_valid_frac"] == 1.0
    assert row["path_length_m"] is None  # no scale from the picture alone
    assert row["imu_source"] is None
    assert row["intrinsics_source"] == "assumed fov 90 pinhole"
    assert str(row["kinematics_backend"]).startswith("cv2-essential/cv2-")
    assert set(row) | {"clip_id", "error"} == set(KinematicsAxis.Columns.model_fields)


def test_without_intrinsics_everything_is_null_and_the_reason_is_given() -> None:
    row = measured(assume_fov_deg=None)
    assert "has no intrinsics" in str(row["kinematics_reason"])
    assert {name for name, value in row.items() if value is not None} == {"kinematics_reason"}


def test_without_intrinsics_an_imu_still_tells_rotation(tmp_path: Path) -> None:
    row = measured({"imu": imu_csv(tmp_path / "imu.csv")}, assume_fov_deg=None)
    assert row["rotation_source"] == "imu"
    assert row["rotation_speed_mean_deg_s"] == pytest.approx(measured()["rotation_speed_mean_deg_s"], rel=0.05)
    assert row["kinematics_backend"] == "imu"
    assert row["path_length_m"] is None


def test_an_imu_with_unknown_clock_and_mounting_gives_metres(tmp_path: Path) -> None:
    axes = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    row = measured({"imu": imu_csv(tmp_path / "imu.csv", offset_s=0.6, axes=axes)})
    assert row["kinematics_reason"] is None
    assert row["imu_time_offset_s"] == pytest.approx(0.6, abs=1 / 30)
    assert row["imu_visual_correlation"] > 0.95  # type: ignore[operator]
    assert row["imu_source"] == "csv imu.csv"
    assert row["imu_repaired"] is False
    assert row["imu_gaps"] == 0
    length = sum(np.linalg.norm(MOTION.velocity(t)) for t in np.arange(0, clip().times_s[-1], 0.01)) * 0.01
    assert row["path_length_m"] == pytest.approx(length, rel=0.15)
    assert 0 < row["path_length_std_m"] < 0.3  # type: ignore[operator]
    assert "eskf-rts" in str(row["kinematics_backend"])


def test_a_recording_of_something_else_is_not_fused(tmp_path: Path) -> None:
    other = replace(MOTION, yaw_deg=replace(MOTION.yaw_deg, hz=1.1), pitch_deg=replace(MOTION.pitch_deg, hz=1.7))
    made = simulate_imu(other, 6.0)
    table = np.concatenate([made.times_s[:, None] * 1e3, made.gyro_rad_s, made.accel_m_s2], axis=1)
    path = tmp_path / "imu.csv"
    path.write_text(COLUMNS + "\n" + "\n".join(",".join(f"{value:.9g}" for value in row) for row in table) + "\n")
    row = measured({"imu": str(path)})
    assert row["path_length_m"] is None
    assert "imu_source" in row
    assert "clocks" in str(row["kinematics_reason"]) or "mounted" in str(row["kinematics_reason"])
    assert row["rotation_speed_mean_deg_s"] is not None  # the picture is not to blame


def test_a_recording_that_cannot_be_read_is_a_reason_not_an_error(tmp_path: Path) -> None:
    row = measured({"imu": str(tmp_path / "none.csv")})
    assert "none.csv: cannot be read" in str(row["kinematics_reason"])
    assert row["rotation_speed_mean_deg_s"] is not None


def test_a_still_and_a_single_frame_and_a_blank_picture() -> None:
    axis = KinematicsAxis(KinematicsConfig.model_validate(FOV))
    rendered = clip()
    still = axis.measure(view_of(np.repeat(rendered.frames[:1], 5, axis=0), axis, fps=7.5))
    assert still["rotation_speed_max_deg_s"] < 0.01
    assert still["translation_direction"] is None
    single = axis.measure(view_of(rendered.frames[:1], axis, fps=30))
    assert single["rotation_total_deg"] is None
    assert "fewer than two" in single["kinematics_reason"]
    blank = axis.measure(view_of(np.full_like(rendered.frames[:4], 90), axis, fps=7.5))
    assert blank["rotation_total_deg"] is None
    assert blank["pose_valid_frac"] == 0.0
    assert "flow holds nowhere" in blank["kinematics_reason"]


def test_poses_from_a_file_are_used_and_checked(tmp_path: Path) -> None:
    poses = np.stack([MOTION.pose(t) for t in clip().times_s])
    poses[:, :3, 3] /= 3.0
    np.save(tmp_path / "sfm.npy", poses)
    axis = KinematicsAxis(KinematicsConfig.model_validate({**FOV, "visual": "files"}))
    rendered = clip()

    def row(extra: dict[str, object]) -> dict[str, object]:
        view = view_of(rendered.frames, axis, times_s=rendered.times_s, clip=Clip("c", "c.mp4", extra=extra))
        return axis.measure(view)

    good = row({"poses": str(tmp_path / "sfm.npy"), "imu": imu_csv(tmp_path / "imu.csv")})
    assert good["kinematics_reason"] is None
    assert str(good["kinematics_backend"]).startswith("files+eskf-rts")
    np.save(tmp_path / "wrong.npy", np.linalg.inv(poses))
    assert "said to be c2w, but read as w2c" in str(row({"poses": str(tmp_path / "wrong.npy")})["kinematics_reason"])
    assert "names no poses" in str(row({})["kinematics_reason"])


def test_the_filter_scores_files_alike_every_time(tmp_path: Path) -> None:
    frames = render_clip(MOTION, frames=20, room=Room(1)).frames
    write_video(tmp_path / "room.mp4", frames)
    one = Kinematics(FOV).score([Clip("a", str(tmp_path / "room.mp4"))])[0]
    two = Kinematics(FOV).score([Clip("b", str(tmp_path / "room.mp4"), 0.1), Clip("a", str(tmp_path / "room.mp4"))])[1]
    assert one.error is None
    assert one == two


def test_the_picture_of_motion_is_valid_svg(tmp_path: Path) -> None:
    axis = KinematicsAxis(KinematicsConfig.model_validate(FOV))
    rendered = clip()
    for extra, words in (({}, "path unknown"), ({"imu": imu_csv(tmp_path / "imu.csv")}, "m across")):
        view = view_of(rendered.frames, axis, times_s=rendered.times_s, clip=Clip("c", "c.mp4", extra=extra))
        (shown,) = axis.illustrate(view, axis.Columns(clip_id="c", **axis.measure(view)))
        root = ElementTree.fromstring(shown.data)
        assert root.tag.endswith("svg")
        assert words in shown.data.decode()
        lines = [node for node in root if node.tag.endswith("polyline")]
        assert len(lines) == (7 if extra else 3)  # three angles, of picture and sensor, and the path
    blank = view_of(rendered.frames[:1], axis, fps=30)
    assert axis.illustrate(blank, axis.Columns(clip_id="c")) == []


def test_angles_are_named_as_the_head_moves() -> None:
    times = np.linspace(0, 2, 50)
    motion = replace(HeadMotion(), spin_deg_s=120)
    angles = euler_deg(np.stack([motion.rotation(t) for t in times]))
    assert np.allclose(angles, [np.degrees(motion.angles(t)) for t in times], atol=1e-6)


def test_pycolmap_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planish_egovid.kinematics.pose.colmap.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"planish-egovid\[colmap\]"):
        KinematicsAxis(KinematicsConfig(visual="colmap"))
    with pytest.raises(ConfigError, match="assume_fov_deg"):
        Kinematics(assume_fov_deg=0)


def test_importing_the_axis_imports_neither_torch_nor_pycolmap() -> None:
    import subprocess

    code = (
        "import sys, planish_egovid.kinematics.annotate; print([m for m in ('torch', 'pycolmap') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
