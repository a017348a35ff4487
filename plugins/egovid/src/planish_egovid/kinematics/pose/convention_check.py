"""Whether poses map the way that they are said to, judged by the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.epipolar_fit import epipolar_residuals
from planish_egovid.kinematics.pose.intrinsics import Intrinsics
from planish_egovid.kinematics.pose.rotation_fit import ray_angles
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory

Array = NDArray[np.float64]


def check_convention(
    trajectory: Trajectory,
    correspondences: Sequence[tuple[int, int, Array, Array]],
    intrinsics: Intrinsics,
    *,
    factor: float = 2.0,
) -> None:
    """Raise if the poses explain the picture clearly better when read the other way around.

    For each pair of frames, the median epipolar distance (or, without a translation, the median reprojection error of
    points at infinity) is taken under both readings.

    Args:
        trajectory: The poses.
        correspondences: (frame i, frame j, pixels [n, 2] in i, the same points in j).
        intrinsics: Lens.
        factor: How many times larger the error must be than that of the other reading.

    Raises:
        PoseError: World-to-camera matrices are called camera-to-world, or the reverse.
    """
    if not correspondences:
        return
    other_way = (
        PoseConvention.WORLD_TO_CAMERA
        if trajectory.convention is PoseConvention.CAMERA_TO_WORLD
        else PoseConvention.CAMERA_TO_WORLD
    )
    swapped = Trajectory(trajectory.matrices, trajectory.times_s, other_way, trajectory.is_metric)
    errors = [_median_error(poses, correspondences, intrinsics) for poses in (trajectory, swapped)]
    if errors[0] > factor * errors[1] and errors[0] > 1.0:
        raise PoseError(
            f"the poses are said to be {trajectory.convention.value}, but read as {other_way.value} they explain the "
            f"picture better ({errors[1]:.2f} px instead of {errors[0]:.2f} px); pass convention="
            f"PoseConvention.{other_way.name}"
        )


def _median_error(
    trajectory: Trajectory, correspondences: Sequence[tuple[int, int, Array, Array]], intrinsics: Intrinsics
) -> float:
    w2c = trajectory.to(PoseConvention.WORLD_TO_CAMERA)
    medians = []
    for i, j, first, second in correspondences:
        rays1, rays2 = intrinsics.rays(first), intrinsics.rays(second)
        seen = np.isfinite(rays1).all(axis=1) & np.isfinite(rays2).all(axis=1)
        rays1, rays2 = rays1[seen], rays2[seen]
        density = intrinsics.pixels_per_radian(rays2)
        rotation = w2c.rotations[j] @ w2c.rotations[i].T
        translation = w2c.translations[j] - rotation @ w2c.translations[i]
        length = np.linalg.norm(translation)
        if np.isfinite(length) and length > 1e-9:
            error = np.abs(epipolar_residuals(rotation, translation / length, rays1, rays2, density))
        else:
            error = ray_angles(rotation, rays1, rays2) * density
        medians.append(float(np.median(error)))
    return float(np.median(medians))
