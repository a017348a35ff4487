"""The essential matrix on rays: residuals, refinement of rotation and direction, and how well they are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.pose.patch_covariance import LinearFit, cauchy_curvature
from planish_egovid.kinematics.pose.rotation import cross, exp, hat

Array = NDArray[np.float64]


def epipolar_residuals(
    rotation: Array, direction: Array, first: Array, second: Array, pixels_per_radian: Array
) -> Array:
    """Return signed Sampson distances [n] in pixels of unit rays [n, 3] to the epipolar planes, on the sphere.

    Args:
        rotation: [3, 3], from the first view's axes to the second's.
        direction: [3], unit translation: ``second ~ depth * rotation @ first + direction``.
        first: Rays of the first view.
        second: Rays of the second view.
        pixels_per_radian: [n].
    """
    value, size = _algebraic(rotation, direction, first, second)
    residuals: Array = value / size * pixels_per_radian
    return residuals


def _algebraic(rotation: Array, direction: Array, first: Array, second: Array) -> tuple[Array, Array]:
    essential = hat(direction) @ rotation
    lines = first @ essential.T
    back = second @ essential
    value = np.sum(second * lines, axis=1)
    size2 = np.sum(cross(lines, second) ** 2, axis=1) + np.sum(cross(back, first) ** 2, axis=1)
    return value, np.sqrt(np.maximum(size2, 1e-18))


def tangent_basis(direction: Array) -> Array:
    """Return two unit vectors [3, 2] that span the plane across a unit vector."""
    across = np.eye(3)[int(np.argmin(np.abs(direction)))]
    one = np.cross(direction, across)
    one /= np.linalg.norm(one)
    return np.stack([one, np.cross(direction, one)], axis=1)


def refine_essential(
    rotation: Array,
    direction: Array,
    first: Array,
    second: Array,
    pixels_per_radian: Array,
    *,
    scale_px: float = 0.5,
    iterations: int = 15,
) -> tuple[Array, Array, LinearFit]:
    """Return rotation and direction refined over all points, and the information about them.

    Iteratively reweighted Gauss-Newton on :func:`epipolar_residuals` under a Cauchy loss of width ``scale_px``.

    Returns:
        The rotation [3, 3], the unit direction [3], and the fit in pixels of (left perturbation of the rotation, shift
        of the direction in its :func:`tangent_basis`).
    """
    fit = LinearFit(np.eye(5), np.zeros((0, 1, 5)), np.zeros((0, 1)))
    damping, cost = 1e-4, np.inf
    best = (rotation, direction)
    for _ in range(iterations):
        basis = tangent_basis(direction)
        value, size = _algebraic(rotation, direction, first, second)
        weight_px = pixels_per_radian / size
        residual = value * weight_px
        now = float(np.log1p((residual / scale_px) ** 2).sum())
        if now < cost:
            gain, cost, best, damping = cost - now, now, (rotation, direction), damping / 5
            turned = first @ rotation.T
            to_rotation = (turned @ direction)[:, None] * second - np.sum(second * turned, axis=1)[:, None] * direction
            jacobian = np.concatenate([to_rotation, cross(turned, second) @ basis], axis=1) * weight_px[:, None]
            weighted = jacobian / (1 + (residual / scale_px) ** 2)[:, None]
            curvature = cauchy_curvature((residual / scale_px) ** 2)
            fit = LinearFit(weighted.T @ jacobian, weighted[:, None], residual[:, None], curvature)
            if gain < 1e-9 * max(cost, 1e-9):
                break
        else:
            rotation, direction = best
            basis, damping = tangent_basis(direction), damping * 20
        matrix = fit.information + damping * np.diag(np.diag(fit.information))
        matrix += 1e-12 * np.trace(matrix) * np.eye(5)
        step = -np.linalg.solve(matrix, np.einsum("nmk,nm->k", fit.jacobian, fit.residual))
        rotation = exp(step[:3]) @ best[0]
        direction = best[1] + basis @ step[3:]
        direction = direction / np.linalg.norm(direction)
    return best[0], best[1], fit


def depths(rotation: Array, direction: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Return the distances [n] of points along their rays in both views, in baselines; negative behind the camera."""
    turned = first @ rotation.T
    along = np.sum(turned * second, axis=1)
    determinant = np.maximum(1 - along**2, 1e-18)
    a, b = turned @ direction, second @ direction
    return (-a + along * b) / determinant, (b - along * a) / determinant
