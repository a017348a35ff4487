"""Covariance of a fit to dense flow, whose errors are alike within patches of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def patches_of(points: Array, width: int, columns: int) -> NDArray[np.int64]:
    """Return the number of the square patch, of ``columns`` across the picture, that each pixel [n, 2] lies in."""
    side = width / columns
    cells = np.floor((np.asarray(points, np.float64) + 0.5) / side).astype(np.int64)
    return np.asarray(cells[:, 1] * (columns + 2) + cells[:, 0], np.int64)


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A least-squares fit at its optimum.

    Attributes:
        information: A, [k, k], weighted Jacobian products.
        jacobian: [n, m, k], of the m residuals of each of n points, times the point's weight.
        residual: [n, m].
        curvature: What the loss' second derivative is, on average over the points, of the weights in ``information``:
            a robust loss that is flatter than a parabola bends less than its weights say. 1 for least squares.
    """

    information: Array
    jacobian: Array
    residual: Array
    curvature: float = 1.0


def cauchy_curvature(squared: Array, along: float = 1.0) -> float:
    """Return :attr:`LinearFit.curvature` of a Cauchy loss.

    Args:
        squared: [n], squared residuals in units of the loss' width.
        along: Share of a residual's dimensions in which it bends at all; across a residual the weight itself counts.
    """
    weight = 1 / (1 + squared)
    second = (1 - squared) * weight**2
    return max(float((along * second + (1 - along) * weight).sum() / weight.sum()), 0.2)


def patch_covariance(fit: LinearFit, patches: NDArray[np.int64], bias_px: float) -> Array:
    """Return the covariance [k, k] of a fit whose residuals have errors in common within each patch.

    The cluster-robust ("sandwich") estimate ``A^-1 (sum over patches of s s^T) A^-1``, s being the summed score of a
    patch (Liang and Zeger 1986) with the small-sample factor B / (B - k), plus what a constant error of ``bias_px``
    in each patch adds, which a fit cannot see in its own residuals.

    Args:
        fit: The fit.
        patches: [n], patch of each point.
        bias_px: Standard deviation of a patch's constant error, in the residuals' unit.
    """
    _, index = np.unique(patches, return_inverse=True)
    count, size = int(index.max()) + 1, fit.information.shape[0]
    sums = np.zeros((count, size))
    np.add.at(sums, index, np.einsum("nmk,nm->nk", fit.jacobian, fit.residual))
    slopes = np.zeros((count, fit.jacobian.shape[1], size))
    np.add.at(slopes, index, fit.jacobian)
    floor = 1e-9 * np.trace(fit.information) / size * np.eye(size)
    inverse = np.linalg.inv(fit.curvature * fit.information + floor)
    seen = count / max(count - size, 1) * (sums.T @ sums)
    unseen = bias_px**2 * np.einsum("bmk,bml->kl", slopes, slopes)
    return np.asarray(inverse @ (seen + unseen) @ inverse)
