"""Correspondences of dense flow brought to subpixel accuracy."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WINDOW_PX = 11
MAX_CHANGE_PX = 1.5
"""A point that this moves further than flow said has slid along an edge, or flow was wrong there."""


def subpixel(
    first_image: NDArray[np.uint8], second_image: NDArray[np.uint8], first: Array, second: Array
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return correspondences refined by Lucas and Kanade's method, started from what is given.

    Dense flow is smooth over a few dozen pixels, also across depth, which biases the direction of a small step by
    several degrees. A window of 11 pixels at full resolution has no such neighbours. Points without enough texture, and
    those that move by more than 1.5 px, are dropped.

    Args:
        first_image: uint8 [height, width].
        second_image: uint8 [height, width].
        first: Pixels [n, 2] of the first picture.
        second: Where they are in the second one, to a pixel or so.

    Returns:
        Those points of both pictures that are left, and bool [n]: which they are.
    """
    if len(first) == 0:
        return first, second, np.zeros(0, np.bool_)
    start = first.astype(np.float32)[:, None]
    guess = second.astype(np.float32)[:, None]
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        first_image,
        second_image,
        start,
        guess.copy(),
        winSize=(WINDOW_PX, WINDOW_PX),
        maxLevel=0,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.01),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        minEigThreshold=1e-4,
    )
    change = np.linalg.norm((found - guess)[:, 0], axis=1)
    kept = (status[:, 0] > 0) & (change < MAX_CHANGE_PX)
    # The window moves by whole and subpixel shifts of single-precision numbers: the start is what it was rounded to.
    return start[kept, 0].astype(np.float64), found[kept, 0].astype(np.float64), np.asarray(kept, np.bool_)
