"""Relative pose of two views from point correspondences, with its covariance, or as much of it as they support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.pose.epipolar_fit import (
    depths,
    epipolar_residuals,
    refine_essential,
    tangent_basis,
)
from planish_egovid.kinematics.pose.intrinsics import Intrinsics
from planish_egovid.kinematics.pose.model_choice import gric
from planish_egovid.kinematics.pose.patch_covariance import patch_covariance, patches_of
from planish_egovid.kinematics.pose.planar import PlanarMotion, planar_motion
from planish_egovid.kinematics.pose.rotation_fit import fit_rotation, ray_angles

Array = NDArray[np.float64]
Patches = NDArray[np.int64]

CHEIRALITY_POINTS = 300
"""Inliers that decide which of four motions has the scene in front of both cameras."""
REFERENCE_WIDTH = 480
"""Picture width in pixels at which parallax and residuals are stated."""


@dataclass(frozen=True)
class TwoViewConfig:
    """Thresholds of :func:`relative_pose`; pixels are those of the picture, parallax is at 480 pixels of width.

    Attributes:
        inlier_px: Largest Sampson distance of an inlier.
        confidence: Of RANSAC.
        min_parallax_px: Median parallax below which a translation is not reported.
        min_points: Correspondences below which nothing is reported.
        min_inlier_frac: Share of inliers below which a translation is not reported.
        sigma_px: Standard deviation of a correspondence, for choosing the model.
        patch_columns: Patches across the picture within which correspondences share their errors, for the covariance.
        bias_px: Standard deviation of the constant error of a patch: dense flow is smooth, also where it is wrong.
    """

    inlier_px: float = 0.5
    confidence: float = 0.999
    min_parallax_px: float = 1.0
    min_points: int = 40
    min_inlier_frac: float = 0.3
    sigma_px: float = 0.3
    patch_columns: int = 6
    bias_px: float = 0.1


@dataclass(frozen=True, eq=False)
class RelativePose:
    """The motion from one view to another: ``x2 = rotation @ x1 + s * translation`` with unknown s > 0.

    Attributes:
        rotation: float64 [3, 3], from the first camera's axes to the second's.
        translation: Unit direction [3] in the second camera's axes, or None where the views do not tell it.
        rotation_covariance: float64 [3, 3] in rad^2, of a perturbation from the left: ``exp(d) rotation``.
        translation_covariance: float64 [3, 3] of the unit direction (rank 2), or None.
        parallax_px: Median displacement that rotation leaves over, at 480 pixels of width.
        inlier_frac: Share of the correspondences that the model explains.
        points: Number of correspondences.
        model: ``"essential"``, ``"homography"`` (the scene is one plane), or ``"rotation"``.
    """

    rotation: Array
    translation: Array | None
    rotation_covariance: Array
    translation_covariance: Array | None
    parallax_px: float
    inlier_frac: float
    points: int
    model: Literal["essential", "homography", "rotation"]

    @property
    def angle_deg(self) -> float:
        """Angle of the rotation in degrees."""
        cosine = (np.trace(self.rotation) - 1) / 2
        sine = np.linalg.norm(self.rotation - self.rotation.T) / np.sqrt(8)
        return float(np.degrees(np.arctan2(sine, cosine)))


def relative_pose(
    first: Array, second: Array, intrinsics: Intrinsics, config: TwoViewConfig | None = None
) -> RelativePose | None:
    """Return the relative pose of two views, or None if there are too few correspondences.

    Five-point RANSAC (Nister 2004) and the cheirality test of ``cv2.recoverPose`` without its default depth limit of
    50 baselines, which turns the direction around where steps are small; refinement of all inliers; GRIC between
    plane and depth; and where the parallax is too small for any direction, a rotation alone. Deterministic.

    Args:
        first: Pixels [n, 2] in the first picture.
        second: The same points in the second picture.
        intrinsics: Lens of both pictures, at their size.
        config: Thresholds.
    """
    config = config or TwoViewConfig()
    rays1, rays2 = intrinsics.rays(first), intrinsics.rays(second)
    seen = np.isfinite(rays1).all(axis=1) & np.isfinite(rays2).all(axis=1)
    rays1, rays2 = rays1[seen], rays2[seen]
    patches = patches_of(np.asarray(first, np.float64)[seen], intrinsics.width, config.patch_columns)
    if len(rays1) < config.min_points:
        return None
    density = intrinsics.pixels_per_radian(rays2)
    to_reference = REFERENCE_WIDTH / intrinsics.width

    def parallax(rotation: Array) -> float:
        return float(np.median(ray_angles(rotation, rays1, rays2) * density)) * to_reference

    only_rotation = _rotation_only(rays1, rays2, density, patches, to_reference, config)
    if only_rotation.parallax_px < 0.5 * config.min_parallax_px:
        return only_rotation
    found = _essential(rays1, rays2, density, patches, intrinsics, config)
    if found is None:
        return only_rotation
    rotation, direction, covariance, residual = found
    inlier_frac = float(np.mean(np.abs(residual) < 2 * config.inlier_px))
    parallax_px = parallax(rotation)
    if parallax_px < config.min_parallax_px or inlier_frac < config.min_inlier_frac:
        return only_rotation
    basis = tangent_basis(direction)
    essential = RelativePose(
        rotation,
        direction,
        covariance[:3, :3],
        basis @ covariance[3:, 3:] @ basis.T,
        parallax_px,
        inlier_frac,
        len(rays1),
        "essential",
    )
    plane = planar_motion(rays1, rays2, density, config.inlier_px * 2, near=essential.rotation)
    if plane is None:
        return essential
    gric_plane = gric(plane.residuals_px**2, sigma_px=config.sigma_px, dimension=2, parameters=8)
    gric_depth = gric(residual**2, sigma_px=config.sigma_px, dimension=3, parameters=5)
    if gric_depth <= gric_plane:
        return essential
    return _planar(plane, essential, parallax(plane.rotation), config)


def _rotation_only(
    rays1: Array, rays2: Array, density: Array, patches: Patches, to_reference: float, config: TwoViewConfig
) -> RelativePose:
    rotation, fit = fit_rotation(rays1, rays2, density, scale_px=config.inlier_px)
    residual = ray_angles(rotation, rays1, rays2) * density
    return RelativePose(
        rotation,
        None,
        patch_covariance(fit, patches, config.bias_px),
        None,
        float(np.median(residual)) * to_reference,
        float(np.mean(residual < 2 * config.inlier_px)),
        len(rays1),
        "rotation",
    )


def _essential(
    rays1: Array, rays2: Array, density: Array, patches: Patches, intrinsics: Intrinsics, config: TwoViewConfig
) -> tuple[Array, Array, Array, Array] | None:
    plane1, plane2 = rays1[:, :2] / rays1[:, 2:], rays2[:, :2] / rays2[:, 2:]
    threshold = config.inlier_px / intrinsics.focal
    matrix, mask = cv2.findEssentialMat(
        plane1, plane2, np.eye(3), method=cv2.RANSAC, prob=config.confidence, threshold=threshold
    )
    if matrix is None or matrix.shape[0] < 3 or mask is None or not mask.any():
        return None
    inliers = np.flatnonzero(mask)
    some = inliers[:: max(1, len(inliers) // CHEIRALITY_POINTS)]
    best: tuple[float, Array, Array] | None = None
    for k in range(0, matrix.shape[0] - 2, 3):  # several solutions may come stacked
        _, rotation, direction, _, _ = cv2.recoverPose(
            matrix[k : k + 3], plane1[some], plane2[some], np.eye(3), distanceThresh=1e5
        )
        residual = epipolar_residuals(rotation, direction[:, 0], rays1, rays2, density)
        cost = float(np.minimum(residual**2, 1).sum())
        if best is None or cost < best[0]:
            best = (cost, rotation, direction[:, 0])
    assert best is not None
    rotation, direction, fit = refine_essential(best[1], best[2], rays1, rays2, density, scale_px=config.inlier_px)
    residual = epipolar_residuals(rotation, direction, rays1, rays2, density)
    depth1, depth2 = depths(rotation, direction, rays1, rays2)
    inlier = np.abs(residual) < 2 * config.inlier_px
    ahead = np.count_nonzero(((depth1 > 0) & (depth2 > 0))[inlier])
    if 2 * ahead < np.count_nonzero(inlier):
        direction = -direction
    return rotation, direction, patch_covariance(fit, patches, config.bias_px), residual


def _planar(plane: PlanarMotion, essential: RelativePose, parallax_px: float, config: TwoViewConfig) -> RelativePose:
    """Return the plane's motion. What a second reading of the plane would change is part of the covariance."""
    rotation_covariance = essential.rotation_covariance + np.outer(plane.ambiguity, plane.ambiguity)
    known = plane.translation is not None and parallax_px >= config.min_parallax_px
    return RelativePose(
        plane.rotation,
        plane.translation if known else None,
        rotation_covariance,
        essential.translation_covariance if known else None,
        parallax_px,
        float(np.mean(plane.residuals_px < 2 * config.inlier_px)),
        essential.points,
        "homography",
    )
