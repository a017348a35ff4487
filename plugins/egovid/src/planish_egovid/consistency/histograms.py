"""Histograms of colour and brightness of thumbnails, and how far they overlap: they change little as a camera moves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BINS = 16
_CHROMATICITY = (0.1, 0.6)
"""Range of red and green as shares of the sum of all three."""
_BRIGHTEST = 3.0
"""Range of brightness, relative to the thumbnail's mean."""
_DARK = 8.0
"""Grey levels added to the mean, so that black frames divide by something."""
_GREY = 0.03
"""Added to relative colours, so that dark pixels count as grey, not as noise."""


def colour_and_light(thumbnails: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return histograms of chromaticity and of brightness around the mean, smoothed and summing to 1.

    Args:
        thumbnails: float32 [frames, height, width, 3], RGB, 0 to 255.

    Returns:
        float64 [frames, 16, 16] and [frames, 16].
    """
    count = len(thumbnails)
    pixels = thumbnails.reshape(count, -1, 3).astype(np.float64)
    relative = pixels / (pixels.mean(axis=(1, 2), keepdims=True) + _DARK) + _GREY
    total = relative.sum(axis=2)
    red, green = (_binned(relative[..., c] / total, *_CHROMATICITY) for c in (0, 1))
    colour = _counted(red * _BINS + green, _BINS * _BINS).reshape(count, _BINS, _BINS)
    light = _counted(_binned(total / 3, 0.0, _BRIGHTEST), _BINS)
    return _smoothed(_smoothed(colour, 1), 2), _smoothed(light, 1)


def overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Bhattacharyya coefficients of pairs of histograms, float64 [pairs]: 1 for equal ones, 0 for disjoint.

    Args:
        first: float64 [pairs, ...], each summing to 1.
        second: The same shape.
    """
    axes = tuple(range(1, first.ndim))
    return np.asarray(np.minimum(np.sqrt(first * second).sum(axis=axes), 1.0), np.float64)


def _binned(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.intp]:
    return np.clip((values - low) / (high - low) * _BINS, 0, _BINS - 1).astype(np.intp)


def _counted(bins: NDArray[np.intp], size: int) -> NDArray[np.float64]:
    """Return the share of each bin in each row, float64 [rows, size]."""
    rows = np.arange(len(bins))[:, None]
    counts = np.bincount((rows * size + bins).ravel(), minlength=len(bins) * size)
    return counts.reshape(len(bins), size) / max(bins.shape[1], 1)


def _smoothed(histograms: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return histograms smoothed by 1-2-1 along an axis, so that a shade across a bin's edge is no other colour."""
    padded = np.pad(histograms, [(1, 1) if a == axis else (0, 0) for a in range(histograms.ndim)], mode="edge")
    before, here, after = (
        np.take(padded, np.arange(start, start + histograms.shape[axis]), axis=axis) for start in range(3)
    )
    smooth = 0.25 * before + 0.5 * here + 0.25 * after
    sums = smooth.sum(axis=tuple(range(1, smooth.ndim)), keepdims=True)
    return np.asarray(smooth / sums, np.float64)
