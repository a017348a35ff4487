"""Blockiness: steps at the borders of a codec's blocks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_PERIOD = 8
_SAME = 0.05
"""Grey levels below which steps are rounding."""


def blockiness(gray: NDArray[np.uint8]) -> float | None:
    """Return how much larger steps between pixels are on every eighth row or column than on the others.

    1 in an unblocked picture; the mean over rows and columns. The grid may begin anywhere, as in a cropped video. None
    for a picture too small or too flat to tell.

    Args:
        gray: uint8 [height, width], as decoded: scaling moves the grid.
    """
    found = []
    for axis, (first, second) in enumerate([(gray[1:], gray[:-1]), (gray[:, 1:], gray[:, :-1])]):
        if min(first.shape) < 4 * _PERIOD:
            continue
        steps = np.asarray(cv2.reduce(cv2.absdiff(first, second), 1 - axis, cv2.REDUCE_AVG, dtype=cv2.CV_32F)).ravel()
        periods = len(steps) // _PERIOD
        phases = steps[: periods * _PERIOD].reshape(periods, _PERIOD).mean(axis=0)
        usual = float(np.median(phases))
        if usual > _SAME:
            found.append(float(phases.max()) / usual)
    return sum(found) / len(found) if found else None
