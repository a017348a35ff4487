"""Exposure and black borders of gray frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLACK = 24
"""Grey level up to which a border's brightest pixels are black; a codec rings into it."""
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
    top, bottom = int(rows.argmax()), height - int(rows[::-1].argmax())
    left, right = int(columns.argmax()), width - int(columns[::-1].argmax())
    seen = (bottom - top) * (right - left)
    return Borders(slice(top, bottom), slice(left, right), 1.0 - seen / (height * width))


def clipped_shares(gray: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the shares of pixels that are nearly black and nearly white."""
    seen = gray[::2, ::2]
    return float(np.count_nonzero(seen <= _DARK)) / seen.size, float(np.count_nonzero(seen >= _BRIGHT)) / seen.size
