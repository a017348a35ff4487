"""Forward-backward check: flow is believed where going there and back ends at the start."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.flow.one_thread import one_thread
from planish_egovid.flow.pixel_grid import inside, pixel_grid


class Returned(NamedTuple):
    """What a check has found.

    Attributes:
        return_px: float32 [ceil(height / grid), ceil(width / grid)], how far from itself each point of the first frame
            ends; infinite for one that leaves the picture, as nothing says where it went.
        valid: bool [ceil(height / grid), ceil(width / grid)], which points return.
        failing_frac: Share of points that do not return, of those that stay in the picture.
    """

    return_px: NDArray[np.float32]
    valid: NDArray[np.bool_]
    failing_frac: float


class ReturnCheck:
    """Checks flow at every ``grid``-th pixel of pictures of one size."""

    def __init__(self, height: int, width: int, grid: int = 2, max_return_px: float = 1.0) -> None:
        """Prepare for pictures of ``height`` x ``width`` pixels.

        Args:
            height: Pixels.
            width: Pixels.
            grid: Pixels between the points that are checked.
            max_return_px: A point is valid if it returns nearer than this to where it started.
        """
        self._grid = grid
        self._limit = max_return_px
        self._size = height, width
        self._start = pixel_grid(height, width, grid)

    def __call__(self, forward: NDArray[np.float32], backward: NDArray[np.float32]) -> Returned:
        """Go forward and back from every point of the first frame.

        Args:
            forward: float32 [height, width, 2], flow from the first frame to the second.
            backward: float32 [height, width, 2], flow from the second to the first, in pixels of the same size.
        """
        step = forward[:: self._grid, :: self._grid]
        target = self._start + step
        with one_thread():
            gap = cv2.remap(backward, target, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        gap += step
        x, y = gap[..., 0], gap[..., 1]
        stays = inside(target, *self._size)
        return_px = np.sqrt(x * x + y * y)
        return_px[~stays] = np.inf
        valid = np.asarray(return_px < self._limit, np.bool_)
        staying = np.count_nonzero(stays)
        return Returned(return_px, valid, 1.0 - np.count_nonzero(valid) / staying if staying else 1.0)
