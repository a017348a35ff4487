"""Trajectories as text: TUM (time and quaternion) and KITTI (3x4 matrices)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.rotation import from_xyzw, nearest_rotation, same_signs, to_xyzw
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory, compose

Array = NDArray[np.float64]


def read_tum(path: str | Path, *, is_metric: bool = True) -> Trajectory:
    """Read ``time tx ty tz qx qy qz qw`` lines, camera-to-world; rows are sorted by time, exact repeats dropped.

    Raises:
        PoseError: The file cannot be read, a row has not eight finite numbers, or two poses have one time.
    """
    rows = _rows(Path(path), 8)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    rows = rows[np.concatenate([[True], np.any(np.diff(rows, axis=0) != 0, axis=1)])]
    return Trajectory(compose(from_xyzw(rows[:, 4:]), rows[:, 1:4]), rows[:, 0], is_metric=is_metric)


def write_tum(trajectory: Trajectory, path: str | Path) -> None:
    """Write ``time tx ty tz qx qy qz qw`` lines, camera-to-world, with 17 significant digits.

    Raises:
        PoseError: The translations are unknown, which the format cannot say.
    """
    c2w = _with_translations(trajectory, "TUM")
    rows = np.concatenate([c2w.times_s[:, None], c2w.translations, same_signs(to_xyzw(c2w.rotations))], axis=1)
    _write_beside(Path(path), lambda file: np.savetxt(file, rows, fmt="%.17g"))


def read_kitti(
    path: str | Path, times_path: str | Path | None = None, *, fps: float = 10.0, is_metric: bool = True
) -> Trajectory:
    """Read a 3x4 row-major camera-to-world matrix a line.

    Args:
        path: Poses.
        times_path: A time in seconds a line; None for ``fps``.
        fps: Poses a second if there are no times.
        is_metric: Whether lengths are metres.

    Raises:
        PoseError: A file cannot be read, a row has not twelve finite numbers, or there are not as many times as poses.
    """
    rows = _rows(Path(path), 12)
    matrices = compose(np.zeros((len(rows), 3, 3)), np.zeros(3))
    matrices[:, :3] = rows.reshape(-1, 3, 4)
    # Printed with few digits, a rotation is orthogonal to about 1e-6 only.
    checked = Trajectory(matrices, np.arange(len(rows)) / fps)
    matrices = compose(nearest_rotation(checked.rotations), checked.translations)
    times = checked.times_s if times_path is None else _rows(Path(times_path), 1)[:, 0]
    return Trajectory(matrices, times, PoseConvention.CAMERA_TO_WORLD, is_metric)


def write_kitti(trajectory: Trajectory, path: str | Path) -> None:
    """Write a 3x4 row-major camera-to-world matrix a line; raises like :func:`write_tum`."""
    c2w = _with_translations(trajectory, "KITTI")
    _write_beside(Path(path), lambda file: np.savetxt(file, c2w.matrices[:, :3].reshape(-1, 12), fmt="%.17g"))


def _with_translations(trajectory: Trajectory, name: str) -> Trajectory:
    if not trajectory.has_translations:
        raise PoseError(f"the {name} format cannot say that translations are unknown; save the matrices as .npy")
    return trajectory.to(PoseConvention.CAMERA_TO_WORLD)


def _rows(path: Path, columns: int) -> Array:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PoseError(f"{path}: cannot be read: {error}") from None
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        line = line.split("#", 1)[0].replace(",", " ").strip()
        if not line:
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != columns or not np.isfinite(row).all():
            raise PoseError(f"{path}, line {number}: {line[:60]!r} is not {columns} finite numbers")
        rows.append(row)
    if not rows:
        raise PoseError(f"{path}: there are no poses in it")
    return np.array(rows)


def _write_beside(path: Path, write: Callable[[TextIO], None]) -> None:
    beside = path.with_name(path.name + f".{os.getpid()}.part")
    with beside.open("w", encoding="utf-8") as file:
        write(file)
    beside.replace(path)
