"""The rotation between two views, fitted to rays alone: right where the camera only turns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.pose.patch_covariance import LinearFit, cauchy_curvature
from planish_egovid.kinematics.pose.rotation import cross, exp

Array = NDArray[np.float64]


def ray_angles(rotation: Array, first: Array, second: Array) -> Array:
    """Return the angles [n] in radians between rays [n, 3] of the second view and turned rays of the first."""
    turned = first @ rotation.T
    across = np.linalg.norm(cross(second, turned), axis=1)
    return np.asarray(np.arctan2(across, np.sum(second * turned, axis=1)), np.float64)


def fit_rotation(
    first: Array, second: Array, pixels_per_radian: Array, *, scale_px: float = 0.5, iterations: int = 25
) -> tuple[Array, LinearFit]:
    """Return the rotation that takes the rays of one view to those of another, robust to rays that disagree.

    Iteratively reweighted Gauss-Newton under a Cauchy loss, whose width falls from the spread of the residuals to
    ``scale_px``: distant points decide where near ones show parallax.

    Args:
        first: Unit rays [n, 3] of the first view, n >= 2.
        second: The same points in the second view.
        pixels_per_radian: [n], how finely the second view sees each.
        scale_px: Width of the loss in pixels.
        iterations: Most steps.

    Returns:
        R [3, 3] with ``second = R first``, and the fit of a perturbation from the left, ``exp(d) R``, in pixels.
    """
    u, _, vt = np.linalg.svd(second.T @ (first * pixels_per_radian[:, None]))
    rotation: Array = (u * [1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    spread = np.inf
    for _ in range(iterations):
        turned = first @ rotation.T
        residual = cross(second, turned) * pixels_per_radian[:, None]
        size = np.linalg.norm(residual, axis=1)
        spread = max(scale_px, min(spread, float(np.median(size)) * 1.5))
        weight = 1 / (1 + (size / spread) ** 2)
        along = np.sum(second * turned, axis=1)[:, None, None]
        jacobian = (along * np.eye(3) - turned[:, :, None] * second[:, None, :]) * pixels_per_radian[:, None, None]
        weighted = weight[:, None, None] * jacobian
        information = weighted.reshape(-1, 3).T @ jacobian.reshape(-1, 3)
        step = -np.linalg.solve(
            information + 1e-9 * np.trace(information) * np.eye(3), weighted.reshape(-1, 3).T @ residual.ravel()
        )
        rotation = exp(step) @ rotation
        if np.linalg.norm(step) < 1e-8:
            break
    curvature = cauchy_curvature((size / spread) ** 2, along=0.5)
    return rotation, LinearFit(information, weighted, residual, curvature)
