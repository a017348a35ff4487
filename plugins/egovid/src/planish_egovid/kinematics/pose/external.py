"""Poses that other tools made: folders of released annotations, and folders of one file a frame."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory, check_poses

Array = NDArray[np.float64]


def read_pose_array(
    path: str | Path,
    *,
    fps: float,
    convention: PoseConvention = PoseConvention.CAMERA_TO_WORLD,
    frames: int | None = None,
    is_metric: bool = False,
) -> Trajectory:
    """Read poses [F, 4, 4] (or [F, 3, 4]) of consecutive frames from a ``.npy`` file.

    The released ``sfm_pose.npy``, ``imu_pose.npy`` and ``fused_pose.npy`` are camera-to-world; VGGT's extrinsics are
    world-to-camera.

    Args:
        path: The file.
        fps: Frames a second.
        convention: Which way the matrices map.
        frames: How many poses there must be; None for any number.
        is_metric: Whether lengths are metres.

    Raises:
        PoseError: The file cannot be read, or does not hold rigid poses.
    """
    try:
        matrices = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PoseError(f"{path}: cannot be read as a .npy array: {error}") from None
    if matrices.ndim == 3 and matrices.shape[1:] == (3, 4):
        matrices = np.concatenate([matrices, np.broadcast_to([[[0, 0, 0, 1.0]]], (len(matrices), 1, 4))], axis=1)
    try:
        check_poses(matrices, frames=frames)
        return Trajectory(matrices, np.arange(len(matrices)) / fps, convention, is_metric)
    except PoseError as error:
        raise PoseError(f"{path}: {error}") from None


def read_pose_folder(
    folder: str | Path,
    *,
    pattern: str = "*.txt",
    fps: float,
    step: int = 1,
    convention: PoseConvention = PoseConvention.CAMERA_TO_WORLD,
) -> Trajectory:
    """Read one 4x4 (or 3x4) matrix a file, in the order of the numbers in the file names.

    ParticleSfM writes such folders. File systems list them in any order, and sorted as text ``10`` comes before ``9``.

    Args:
        folder: The folder.
        pattern: Which files.
        fps: Frames a second of the video.
        step: Frames from one number to the next.
        convention: Which way the matrices map.

    Raises:
        PoseError: There are no such files, a name holds no number, two hold the same, or a file is no matrix.
    """
    numbered: dict[int, Path] = {}
    for path in Path(folder).glob(pattern):
        digits = re.findall(r"\d+", path.stem)
        if not digits:
            raise PoseError(f"{path}: the name holds no number, so its frame is unknown; name files by frame")
        number = int(digits[-1])
        if number in numbered:
            raise PoseError(f"{path} and {numbered[number].name} are both pose {number}; keep one")
        numbered[number] = path
    if not numbered:
        raise PoseError(f"{folder}: no file matches {pattern!r}")
    matrices, numbers = [], sorted(numbered)
    for number in numbers:
        try:
            matrix = np.loadtxt(numbered[number])
        except (OSError, ValueError) as error:
            raise PoseError(f"{numbered[number]}: {error}") from None
        if matrix.shape == (3, 4):
            matrix = np.vstack([matrix, [0, 0, 0, 1.0]])
        if matrix.shape != (4, 4):
            raise PoseError(f"{numbered[number]}: shape {list(matrix.shape)}; a 4x4 or 3x4 matrix is needed")
        matrices.append(matrix)
    times = (np.array(numbers) - numbers[0]) * step / fps
    return Trajectory(np.stack(matrices), times, convention)
