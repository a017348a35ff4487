from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose import rotation as so3
from planish_egovid.kinematics.pose.alignment import align, umeyama
from planish_egovid.kinematics.pose.external import read_pose_array, read_pose_folder
from planish_egovid.kinematics.pose.interpolation import every_frame, interpolate
from planish_egovid.kinematics.pose.text_formats import read_kitti, read_tum, write_kitti, write_tum
from planish_egovid.kinematics.pose.trajectory import (
    PoseConvention,
    Trajectory,
    check_poses,
    compose,
    inverse,
)
from planish_egovid.kinematics.pose.trajectory_error import absolute_errors, in_step, relative_errors
from planish_egovid.testing import HeadMotion

C2W, W2C = PoseConvention.CAMERA_TO_WORLD, PoseConvention.WORLD_TO_CAMERA


def walk(n: int = 24, step: int = 5) -> Trajectory:
    times = np.arange(n) * step / 30
    return Trajectory(np.stack([HeadMotion().pose(t) for t in times]), times, is_metric=True)


def rigid(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return compose(so3.exp(rng.standard_normal(3)), rng.standard_normal(3) * 5)


def test_conventions_are_inverses_of_each_other() -> None:
    there = walk().to(W2C)
    assert there.convention is W2C
    assert np.abs(there.to(C2W).matrices - walk().matrices).max() <= 1e-12
    assert np.allclose(there.matrices @ walk().matrices, np.eye(4), atol=1e-12)


def test_another_world_frame_changes_no_relative_pose() -> None:
    for convention in (C2W, W2C):
        here = walk().to(convention)
        there = here.transformed(rigid())
        assert not np.allclose(here.matrices, there.matrices)
        assert np.allclose(here.relative(), there.relative(), atol=1e-10)
        assert np.allclose(here.rebased().matrices, there.rebased().matrices, atol=1e-10)


def test_relative_poses_take_points_of_one_camera_to_the_next() -> None:
    poses, point = walk(), np.array([0.3, -0.2, 2.0, 1.0])  # in the world
    first, second = (inverse(m) @ point for m in poses.matrices[:2])
    assert np.allclose(poses.relative()[0] @ first, second)


def test_rotations_without_translations_keep_them_unknown() -> None:
    rotations = Trajectory.of_rotations(walk().rotations, walk().times_s)
    assert not rotations.has_translations
    assert rotations.path_length() is None
    for changed in (rotations.to(W2C), rotations.rebased(), rotations.transformed(rigid())):
        assert np.isfinite(changed.rotations).all()
        assert np.isnan(changed.translations).all()
    assert np.allclose(rotations.relative()[:, :3, :3], walk().relative()[:, :3, :3])
    with pytest.raises(PoseError, match="rotations only"):
        align(rotations, walk())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[0], r"shape \[4, 4\]"),
        (lambda m: m[:, :3], r"shape \[24, 3, 4\]"),
        (lambda m: m * np.array([-1, 1, 1, 1.0])[:, None], "determinant -1.0"),
        (lambda m: np.concatenate([m[:, :, :3] * 1.1, m[:, :, 3:]], axis=2), "determinant 1.33"),
        (lambda m: m @ np.diag([2, 0.5, 1, 1.0]), "not orthogonal"),
        (lambda m: np.where(np.arange(24)[:, None, None] == 7, np.nan, m), "pose 7 is not finite"),
        (lambda m: np.swapaxes(m, 1, 2), "transposed"),
    ],
)
def test_what_is_no_pose_is_refused(change: object, message: str) -> None:
    with pytest.raises(PoseError, match=message):
        check_poses(change(walk().matrices.copy()))  # type: ignore[operator]


def test_numbers_of_poses_and_frames_are_both_named() -> None:
    with pytest.raises(PoseError, match="24 poses for 120 frames"):
        check_poses(walk().matrices, frames=120)
    with pytest.raises(PoseError, match="rise strictly"):
        Trajectory(walk().matrices, np.zeros(24))


def test_interpolation_from_24_to_120_is_exact_at_knots() -> None:
    poses, is_between = every_frame(walk().matrices)
    assert len(poses) == 120
    assert np.array_equal(poses.matrices[0:116:5], walk().matrices)  # {0, 5, ..., 115}, bit for bit
    assert np.allclose(np.linalg.det(poses.rotations), 1)
    assert is_between.tolist() == [True] * 116 + [False] * 4
    truth = np.stack([HeadMotion().pose(k / 30) for k in range(120)])
    assert so3.angle_deg(np.swapaxes(poses.rotations[:116], 1, 2) @ truth[:116, :3, :3]).max() < 0.6


def test_interpolation_takes_the_shortest_arc_whatever_the_signs_of_quaternions() -> None:
    q = so3.to_xyzw(walk().rotations)
    flipped = so3.from_xyzw(q * np.where(np.arange(24) % 2, -1.0, 1.0)[:, None])
    other, _ = every_frame(compose(flipped, walk().translations))
    assert np.allclose(other.matrices, every_frame(walk().matrices)[0].matrices, atol=1e-12)
    ends = Trajectory.of_rotations(so3.exp(np.array([[0, 3.0, 0], [0, -3.0, 0]])), np.array([0.0, 1.0]))
    middle = interpolate(ends, np.array([0.5])).rotations[0]
    assert so3.angle_deg(middle) == pytest.approx(180)  # over the back, 16 degrees, not over the front, 344


def test_interpolation_does_not_invent_poses() -> None:
    with pytest.raises(PoseError, match="outside the 24 known ones"):
        interpolate(walk(), np.array([0.0, 4.5]))
    with pytest.raises(PoseError, match="one pose only"):
        interpolate(Trajectory(np.eye(4)[None], np.zeros(1)), np.array([0.0]))


def test_umeyama_finds_the_similarity() -> None:
    points = np.random.default_rng(1).standard_normal((50, 3))
    turn, shift = so3.exp(np.array([0.4, -1.2, 2.0])), np.array([1.0, 2.0, 3.0])
    found = umeyama(points, 2.5 * points @ turn.T + shift)
    assert found.scale == pytest.approx(2.5)
    assert np.allclose(found.rotation, turn)
    assert np.allclose(found.translation, shift)
    mirrored = umeyama(points, points * [1, 1, -1])
    assert np.linalg.det(mirrored.rotation) == pytest.approx(1)
    with pytest.raises(PoseError, match="on one line"):
        umeyama(np.outer(np.arange(5.0), [1, 2, 3]), np.outer(np.arange(5.0), [1, 2, 3]))


def test_errors_see_what_alignment_cannot_explain_and_nothing_else() -> None:
    moved = walk().scaled(0.4, is_metric=False).transformed(rigid())
    assert absolute_errors(moved, walk(), alignment="similarity").translation_rmse < 1e-10
    assert absolute_errors(moved, walk(), alignment="rigid").translation_rmse > 0.1
    assert relative_errors(walk().transformed(rigid()), walk()).translation_rmse < 1e-10
    noisy = Trajectory(
        compose(walk().rotations, walk().translations + [[0, 0, 0.1 * (k % 2)] for k in range(24)]), walk().times_s
    )
    assert absolute_errors(noisy, walk(), alignment="none").translation_rmse == pytest.approx(np.sqrt(0.005))
    part, reference = in_step(walk(12, 10), walk())
    assert len(part) == len(reference) == 12
    assert absolute_errors(part, reference, alignment="none").rotation_rmse_deg < 1


def test_text_formats_keep_every_digit(tmp_path: Path) -> None:
    write_tum(walk(), tmp_path / "tum.txt")
    write_kitti(walk(), tmp_path / "kitti.txt")
    assert np.allclose(read_tum(tmp_path / "tum.txt").matrices, walk().matrices, atol=1e-14)
    assert np.array_equal(read_tum(tmp_path / "tum.txt").times_s, walk().times_s)
    assert np.allclose(read_kitti(tmp_path / "kitti.txt", fps=6).matrices, walk().matrices, atol=1e-14)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["kitti.txt", "tum.txt"]
    with pytest.raises(PoseError, match="cannot say"):
        write_tum(Trajectory.of_rotations(walk().rotations, walk().times_s), tmp_path / "x.txt")


def test_bad_text_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "tum.txt"
    path.write_text("# time tx ty tz qx qy qz qw\n0 0 0 0 0 0 0 1\n0.1 0 0 nan 0 0 0 1\n")
    with pytest.raises(PoseError, match=r"line 3: .* is not 8 finite numbers"):
        read_tum(path)
    path.write_text("0.2 1 0 0 0 0 0 1\n0.1 0 0 0 0 0 0 1\n0.1 0 0 0 0 0 0 1\n")
    assert read_tum(path).times_s.tolist() == [0.1, 0.2]  # sorted, the repeat dropped
    path.write_text("\n")
    with pytest.raises(PoseError, match="no poses"):
        read_tum(path)


def test_pose_files_are_read_by_number_not_by_the_order_of_the_folder(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(24)  # a file system may list them so
    for k in order:
        np.savetxt(tmp_path / f"pose_{k}.txt", walk().matrices[k], fmt="%.17g")
    found = read_pose_folder(tmp_path, fps=30, step=5)
    assert np.allclose(found.matrices, walk().matrices, atol=1e-12)
    assert np.allclose(found.times_s, walk().times_s)
    np.savetxt(tmp_path / "other_3.txt", np.eye(4))
    with pytest.raises(PoseError, match="both pose 3"):
        read_pose_folder(tmp_path, fps=30)
    with pytest.raises(PoseError, match="no file matches"):
        read_pose_folder(tmp_path, pattern="*.json", fps=30)


def test_pose_arrays_of_other_tools_are_read_and_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "sfm_pose.npy", walk().matrices)
    assert len(read_pose_array(tmp_path / "sfm_pose.npy", fps=30, frames=24)) == 24
    np.save(tmp_path / "vggt.npy", walk().to(W2C).matrices[:, :3])
    vggt = read_pose_array(tmp_path / "vggt.npy", fps=6, convention=W2C).to(C2W)
    assert np.allclose(vggt.matrices, walk().matrices, atol=1e-12)
    with pytest.raises(PoseError, match="24 poses for 120 frames"):
        read_pose_array(tmp_path / "sfm_pose.npy", fps=30, frames=120)
    (tmp_path / "broken.npy").write_bytes(b"no numpy file")
    with pytest.raises(PoseError, match="cannot be read"):
        read_pose_array(tmp_path / "broken.npy", fps=30)
