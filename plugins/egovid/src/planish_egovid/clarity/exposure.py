"""Exposure and black borders of gray frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLACK = 24
"""Grey level up to which a border's brightest pixels are black; a codec rings into it."""
_EDGE = 3
"""Rows or columns of picture beside a bar, which are not black as a whole."""
_DARK, _BRIGHT = 16, 250
_APART = 4
"""A row or column is judged by every fourth of its pixels, and exposure by every fourth of the picture's."""


@dataclass(frozen=True)
class Borders:
    """Rows and columns of picture between black borders, as slices, and the share of the area outside."""

    rows: slice
    columns: slice
    share: float


def black_borders(frames: NDArray[np.uint8]) -> Borders:
    """Return the black borders that all frames have; an all black clip has none.

    Args:
        frames: uint8 [frames, height, width], gray.
    """
    height, width = frames.shape[1:]
    # The brightest twentieth is left out: noise and logos reach into borders.
    rows = np.quantile(frames[:, :, ::_APART], 0.95, axis=2, method="higher").max(axis=0) > _BLACK
    columns = np.quantile(frames[:, ::_APART], 0.95, axis=1, method="higher").max(axis=0) > _BLACK
    if not rows.any() or not columns.any():
        return Borders(slice(0, height), slice(0, width), 0.0)
    first, last = int(rows.argmax()), height - int(rows[::-1].argmax())
    left, right = int(columns.argmax()), width - int(columns[::-1].argmax())
    inside = frames[:, first:last, left:right]
    first, last = _without_fades(first, last, height, inside.mean(axis=(0, 2)))
    left, right = _without_fades(left, right, width, inside.mean(axis=(0, 1)))
    share = 1.0 - (last - first) * (right - left) / (height * width)
    return Borders(slice(first, last), slice(left, right), share)


def _without_fades(start: int, stop: int, size: int, brightness: NDArray[np.float64]) -> tuple[int, int]:
    """Return where the picture begins and ends along one side: a dark scene's black belongs to it, a bar's does not.

    Args:
        start: First row or column that is not black.
        stop: The one after the last.
        size: Number of rows or columns.
        brightness: float64 [stop - start], mean of each.
    """
    # A bar ends at an edge, a scene fades out.
    if brightness[:_EDGE].mean() < _BLACK:
        start = 0
    if brightness[-_EDGE:].mean() < _BLACK:
        stop = size
    return start, stop


def clipped_shares(gray: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the shares of pixels that are nearly black and nearly white."""
    seen = gray[::2, ::2]
    return float(np.count_nonzero(seen <= _DARK)) / seen.size, float(np.count_nonzero(seen >= _BRIGHT)) / seen.size
