"""Where the pixels of a picture are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=8)
def pixel_grid(height: int, width: int, grid: int = 1) -> NDArray[np.float32]:
    """Return float32 [ceil(height / grid), ceil(width / grid), 2]: (x, y) of every ``grid``-th pixel; do not write."""
    x, y = np.meshgrid(np.arange(0, width, grid, dtype=np.float32), np.arange(0, height, grid, dtype=np.float32))
    points = np.stack([x, y], axis=-1)
    points.setflags(write=False)
    return points


def inside(points: NDArray[np.float32], height: int, width: int, margin: float = 0.0) -> NDArray[np.bool_]:
    """Return bool [...]: which (x, y) of float32 [..., 2] lie on the picture, pixel centres at whole numbers.

    Args:
        points: float32 [..., 2].
        height: Pixels.
        width: Pixels.
        margin: Pixels along the edges that count as outside.
    """
    x, y = points[..., 0], points[..., 1]
    right, bottom = width - 1 - margin, height - 1 - margin
    return np.asarray((x >= margin) & (x <= right) & (y >= margin) & (y <= bottom), np.bool_)
