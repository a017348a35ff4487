"""GRIC: whether two views are better explained by a plane or by a scene with depth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def gric(squared_px: Array, *, sigma_px: float, dimension: int, parameters: int) -> float:
    """Return Torr's geometric robust information criterion; the model with the smaller one is chosen.

    Torr, "Geometric motion segmentation and model selection" (1998): sum of min(e^2 / sigma^2, 2 (4 - d)), plus
    log(4) d n, plus log(4 n) k, for n correspondences of dimension 4.

    Args:
        squared_px: Squared residuals [n] in pixels^2.
        sigma_px: Standard deviation of a correspondence.
        dimension: Of the model's manifold, d: 3 for an essential matrix, 2 for a homography or a rotation.
        parameters: Of the model, k: 5, 8 or 3.
    """
    n = len(squared_px)
    capped = np.minimum(squared_px / sigma_px**2, 2.0 * (4 - dimension))
    return float(capped.sum() + np.log(4) * dimension * n + np.log(4 * n) * parameters)
