"""The dominant motion of a picture: the homography that most of its flow agrees with."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.flow.one_thread import one_thread
from planish_egovid.flow.pixel_grid import inside, pixel_grid
from planish_egovid.flow.prewarp import keeps_orientation

POINTS_PX = 16
"""Spacing of the flow vectors that the homography is fitted to."""
FEWEST_POINTS = 24
AGREE_PX = 3.0
"""How far a vector may be from the homography to count as agreeing, in pixels of the analysed picture."""
STILL_PX = 1.0
STILL_SHARE = 0.8
"""No motion at all wins if it explains this share of the vectors that the homography explains, each to ``STILL_PX``.

Before a camera that stands still most vectors are noise on plain walls, and eight free parameters follow a hand.
"""
EDGE_PX = 32
"""Near the picture's edge flow is not looked at: a patch of 8 px at a quarter of the size, half outside, moves too
little, there and back alike."""


def edge_px(height: int, width: int) -> float:
    """Return the width of the edge that is not looked at, in pixels; less in small pictures."""
    return min(EDGE_PX, height / 8, width / 8)


def dominant_homography(
    flow: NDArray[np.float32], trusted: NDArray[np.bool_] | None, grid: int, shape: tuple[int, int]
) -> NDArray[np.float64] | None:
    """Return the homography [3, 3] that most trusted flow vectors agree with, by RANSAC.

    A turn of the head moves everything by one homography, whatever the depth; hands and near things stick out of it.
    The identity is preferred where it does about as well.

    Args:
        flow: float32 [rows, columns, 2], flow at every ``grid``-th pixel, in pixels of the picture.
        trusted: bool [rows, columns], which of it to look at; None for all that stays in the picture.
        grid: Pixels between the points of ``flow``.
        shape: Height and width of the picture.

    Returns:
        None if there are too few trusted vectors, or if they agree on nothing that a camera could do.
    """
    step = max(1, POINTS_PX // grid)
    points = pixel_grid(*shape, grid)[::step, ::step]
    margin = edge_px(*shape)
    looked_at = inside(points, *shape, margin) & inside(points + flow[::step, ::step], *shape, margin)
    if trusted is not None:
        looked_at &= trusted[::step, ::step]
    rows, columns = np.nonzero(looked_at)
    if len(rows) < FEWEST_POINTS:
        return None
    rows, columns = rows * step, columns * step
    here = np.stack([columns, rows], axis=1).astype(np.float64) * grid
    vectors = flow[rows, columns].astype(np.float64)
    with one_thread():
        homography, agree = cv2.findHomography(here, here + vectors, cv2.RANSAC, AGREE_PX)
        if homography is None or np.count_nonzero(agree) < FEWEST_POINTS or not keeps_orientation(homography, shape):
            return None
        left = here + vectors - cv2.perspectiveTransform(here[None], homography)[0]
    still, explained = (np.count_nonzero(np.hypot(*gaps.T) < STILL_PX) for gaps in (vectors, left))
    if still >= max(FEWEST_POINTS, STILL_SHARE * explained):
        return np.eye(3)
    return np.asarray(homography, np.float64)
