"""Poses by COLMAP's incremental structure from motion, through pycolmap; an optional backend."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.errors import UnsupportedError

from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.intrinsics import Intrinsics
from planish_egovid.kinematics.pose.rotation import nearest_rotation
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory, compose

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ColmapConfig:
    """How COLMAP is run.

    Attributes:
        overlap: Pictures that each one is matched with.
        max_features: SIFT features of a picture.
        timeout_s: Seconds after which it is given up.
        seed: Of its random numbers.
    """

    overlap: int = 5
    max_features: int = 1500
    timeout_s: float = 600.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What COLMAP found.

    Attributes:
        trajectory: Camera-to-world, up to scale, of the registered pictures.
        frames: int [n], which pictures those are.
        points: Number of 3-D points.
        error_px: Mean reprojection error.
    """

    trajectory: Trajectory
    frames: NDArray[np.intp]
    points: int
    error_px: float


def require_pycolmap() -> None:
    """Raise unless pycolmap is installed.

    Raises:
        UnsupportedError: It is not.
    """
    if importlib.util.find_spec("pycolmap") is None:
        raise UnsupportedError('visual "colmap" needs pycolmap; pip install "planish-egovid[colmap]"')


def reconstruct(
    images: NDArray[np.uint8], times_s: Array, intrinsics: Intrinsics, config: ColmapConfig | None = None
) -> Reconstruction:
    """Return the poses of pictures, which need to overlap and to move.

    COLMAP runs in a process of its own, on one core.

    Args:
        images: uint8 [n, height, width].
        times_s: float64 [n].
        intrinsics: Lens, held fixed.
        config: How to run it.

    Raises:
        UnsupportedError: pycolmap is not installed.
        PoseError: COLMAP fails, takes too long, or registers fewer than three pictures.
    """
    require_pycolmap()
    config = config or ColmapConfig()
    with tempfile.TemporaryDirectory(prefix="planish-colmap-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for i, image in enumerate(images):
            cv2.imwrite(str(folder / "images" / f"{i:06d}.png"), image)
        model, params = _camera(intrinsics)
        job = {
            "folder": name,
            "camera_model": model,
            "camera_params": params,
            "overlap": config.overlap,
            "max_features": config.max_features,
            "seed": config.seed,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "planish_egovid.kinematics.pose.colmap_worker", str(folder / "job.json")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=config.timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise PoseError(f"COLMAP took longer than {config.timeout_s:g} s for {len(images)} pictures") from None
        result_file = folder / "result.json"
        if done.returncode != 0 or not result_file.exists():
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
            raise PoseError(f"COLMAP failed with exit code {done.returncode}: {last[:200]}")
        result = json.loads(result_file.read_text(encoding="utf-8"))
    frames = np.array([int(Path(item).stem) for item in result["names"]], np.intp)
    if len(frames) < 3:
        raise PoseError(
            f"COLMAP registered {len(frames)} of {len(images)} pictures; they show too little texture or parallax"
        )
    w2c = np.array(result["w2c"], np.float64)
    matrices = compose(nearest_rotation(w2c[:, :, :3]), w2c[:, :, 3])
    trajectory = Trajectory(matrices, np.asarray(times_s, np.float64)[frames], PoseConvention.WORLD_TO_CAMERA)
    c2w = trajectory.to(PoseConvention.CAMERA_TO_WORLD)
    return Reconstruction(c2w, frames, int(result["points"]), float(result["error_px"]))


def _camera(lens: Intrinsics) -> tuple[str, str]:
    """Return COLMAP's model and parameters; its pixel centres lie at halves, OpenCV's at whole numbers."""
    values = [lens.fx, lens.fy, lens.cx + 0.5, lens.cy + 0.5]
    if lens.lens == "pinhole":
        return "PINHOLE", _listed(values)
    if lens.lens == "fisheye":
        return "OPENCV_FISHEYE", _listed([*values, *(lens.distortion or (0.0,) * 4)])
    coefficients = list(lens.distortion)
    if len(coefficients) == 4:
        return "OPENCV", _listed([*values, *coefficients])
    return "FULL_OPENCV", _listed([*values, *coefficients, *([0.0] * (8 - len(coefficients)))])


def _listed(values: list[float]) -> str:
    return ",".join(f"{value:.17g}" for value in values)
