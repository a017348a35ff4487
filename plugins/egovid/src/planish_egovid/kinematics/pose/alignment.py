"""Umeyama alignment: the similarity that best takes one set of points to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.rotation import nearest_rotation
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory, compose

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Similarity:
    """``y = scale * rotation @ x + translation``.

    Attributes:
        rotation: float64 [3, 3].
        translation: float64 [3].
        scale: > 0.
    """

    rotation: Array
    translation: Array
    scale: float = 1.0

    def points(self, points: Array) -> Array:
        """Return transformed points [n, 3]."""
        return self.scale * points @ self.rotation.T + self.translation

    def trajectory(self, trajectory: Trajectory, *, is_metric: bool | None = None) -> Trajectory:
        """Return a trajectory in the other frame; rotations turn along, centres are scaled too."""
        c2w = trajectory.to(PoseConvention.CAMERA_TO_WORLD)
        moved = compose(self.rotation @ c2w.rotations, self.points(c2w.translations))
        metric = trajectory.is_metric if is_metric is None else is_metric
        return Trajectory(moved, c2w.times_s, c2w.convention, metric).to(trajectory.convention)


def umeyama(source: Array, target: Array, *, with_scale: bool = True) -> Similarity:
    """Return the similarity with least squared error from ``source`` to ``target``, both [n, 3].

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991), eq. 40-43.
    A mirror image is never returned.

    Raises:
        PoseError: Unequal shapes, fewer than three points, or all points in one place or on one line, which leaves
            the rotation open.
    """
    x, y = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] != 3 or len(x) < 3:
        raise PoseError(f"alignment needs two [n, 3] arrays with n >= 3; they are {list(x.shape)} and {list(y.shape)}")
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    cross = (y - mean_y).T @ (x - mean_x) / len(x)
    spread = np.linalg.svd(cross, compute_uv=False)
    if not np.isfinite(spread).all() or spread[1] < 1e-9 * max(spread[0], 1e-300) or spread[0] == 0:
        raise PoseError("alignment is undetermined: all points lie on one line or in one place; use a longer path")
    rotation = nearest_rotation(cross)
    variance = float(((x - mean_x) ** 2).sum() / len(x))
    scale = float(np.trace(rotation.T @ cross) / variance) if with_scale else 1.0
    return Similarity(rotation, mean_y - scale * rotation @ mean_x, scale)


def align(source: Trajectory, target: Trajectory, *, with_scale: bool = True) -> Similarity:
    """Return the similarity that takes the centres of ``source`` to those of ``target``, pose by pose.

    Raises:
        PoseError: As :func:`umeyama`, or one of them has no translations.
    """
    if not (source.has_translations and target.has_translations):
        raise PoseError("alignment needs camera centres, and one of the trajectories has rotations only")
    convention = PoseConvention.CAMERA_TO_WORLD
    return umeyama(source.to(convention).translations, target.to(convention).translations, with_scale=with_scale)
