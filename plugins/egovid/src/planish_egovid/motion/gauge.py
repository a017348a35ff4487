"""Gauge: turns the flow of a pair of frames into the numbers of the motion axis."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.flow.one_thread import one_thread
from planish_egovid.flow.pixel_grid import pixel_grid

REFERENCE_PX = 512.0
BUCKETS = ("flow_0_4", "flow_4_8", "flow_8_12", "flow_12_16", "flow_16_")
WINDOWS = ("flow5_center", "flow5_top_left", "flow5_top_right", "flow5_bottom_left", "flow5_bottom_right")
_EDGES = (4.0, 8.0, 12.0, 16.0)
_OFFICIAL_EDGE = 5.0
"""End of EgoVid's first bucket."""
_PADDED_TO = 8


@dataclass(frozen=True)
class PairMotion:
    """Motion between two frames; magnitudes in px at a mean side of 512.

    Attributes:
        mean: Mean magnitude.
        buckets: Shares of pixels, in the order of ``BUCKETS``.
        windows: Mean magnitudes, in the order of ``WINDOWS``.
        dominant: Mean magnitude of the dominant homography, or None.
        residual: Mean magnitude of what it leaves, over valid pixels, or None.
        valid_frac: Share of valid pixels, or None if they were not checked.
    """

    mean: float
    buckets: tuple[float, ...]
    windows: tuple[float, ...]
    dominant: float | None
    residual: float | None
    valid_frac: float | None


class _Space:
    """Memory for the numbers of one pair, used for pair after pair: fresh pages would cost as much as the numbers."""

    def __init__(self, rows: int, columns: int) -> None:
        self.x, self.y, self.camera_x, self.camera_y, self.magnitude, self.square = np.empty(
            (6, rows, columns), np.float32
        )
        self.moved = np.empty((rows, columns, 2), np.float32)
        self.mask = np.empty((rows, columns), np.bool_)


class _Spaces(threading.local):
    """The space that each thread has used last."""

    last: _Space | None = None

    def of(self, rows: int, columns: int) -> _Space:
        """Return space for pairs of this size; what was in it before is lost."""
        if self.last is None or self.last.mask.shape != (rows, columns):
            self.last = _Space(rows, columns)
        return self.last


_SPACE = _Spaces()


class Gauge:
    """Measures the flow of one clip.

    The magnitude of a pair is ``512 * |flow| / mean(height, width)``, times ``stride_s`` over the seconds between its
    frames, so that neither resolution nor frame rate matter. EgoVid's script (``optical-flow-score.py``) differs in
    four ways, which ``official`` turns on: the sides are padded to a multiple of 8 with the edge repeated, and the
    padding counts; time is not looked at; its first bucket is (0, 5], not [0, 4]; a pixel with no motion at all is in
    no bucket.
    """

    def __init__(
        self, height: int, width: int, scale: float, stride_s: float, *, grid: int = 1, official: bool = False
    ) -> None:
        """Prepare for the flow of one clip.

        Args:
            height: Of the upright video, pixels.
            width: Of the upright video, pixels.
            scale: Pixels of the analysed picture a pixel of the video.
            stride_s: Seconds that magnitudes refer to.
            grid: Pixels of the analysed picture between flow vectors.
            official: Whether to measure as EgoVid's script does.
        """
        self._sides = height, width
        self._grid = grid
        self._official = official
        self._stride_s = stride_s
        padding = (-height % _PADDED_TO, -width % _PADDED_TO) if official else (0, 0)
        self._padding = padding
        self._unit = REFERENCE_PX / (0.5 * (height + padding[0] + width + padding[1]) * scale)
        self._weights: NDArray[np.float64] | None = None

    def pair(
        self,
        flow: NDArray[np.float32],
        interval_s: float,
        *,
        valid: NDArray[np.bool_] | None = None,
        homography: NDArray[np.float64] | None = None,
    ) -> PairMotion:
        """Measure the flow of one pair.

        Args:
            flow: float32 [rows, columns, 2], pixels of the analysed picture, at every ``grid``-th pixel.
            interval_s: Seconds between the two frames.
            valid: bool [rows, columns], which of it could be followed; None if that was not checked.
            homography: float64 [3, 3], dominant motion in pixels of the analysed picture, or None.
        """
        unit = self._unit if self._official else self._unit * self._stride_s / interval_s
        rows, columns = flow.shape[:2]
        space = _SPACE.of(rows, columns)
        # Apart from each other, x and y are read in one go by all that follows.
        np.copyto(space.x, flow[..., 0])
        np.copyto(space.y, flow[..., 1])
        magnitude = _magnitude(space.x, space.y, space)
        magnitude *= np.float32(unit)
        mean, buckets = self._share(magnitude), self._buckets(magnitude, space)
        windows = tuple(_mean(magnitude[window]) for window in _windows(rows, columns))
        dominant = residual = None
        if homography is not None:
            points = pixel_grid(rows * self._grid, columns * self._grid, self._grid)
            with one_thread():
                moved = cv2.perspectiveTransform(points, homography, dst=space.moved)
            np.subtract(moved[..., 0], points[..., 0], out=space.camera_x)
            np.subtract(moved[..., 1], points[..., 1], out=space.camera_y)
            dominant = _mean(_magnitude(space.camera_x, space.camera_y, space)) * unit
            space.x -= space.camera_x
            space.y -= space.camera_y
            rest = _magnitude(space.x, space.y, space)
            rest = rest if valid is None else rest[valid]
            residual = _mean(rest) * unit if rest.size else None
        return PairMotion(
            mean=mean,
            buckets=buckets,
            windows=windows,
            dominant=dominant,
            residual=residual,
            valid_frac=None if valid is None else float(np.count_nonzero(valid) / valid.size),
        )

    def _buckets(self, magnitude: NDArray[np.float32], space: _Space) -> tuple[float, ...]:
        if self._padding == (0, 0):
            # What lies between two edges is counted as what is below the one and not below the other.
            below = [int(np.count_nonzero(np.less_equal(magnitude, edge, out=space.mask))) for edge in _EDGES]
            above = int(np.count_nonzero(np.greater(magnitude, _EDGES[-1], out=space.mask)))
            first = below[0]
            if self._official:
                first = int(np.count_nonzero(np.less_equal(magnitude, _OFFICIAL_EDGE, out=space.mask)))
                first -= int(np.count_nonzero(np.less_equal(magnitude, 0.0, out=space.mask)))
            counts = (first, *(high - low for low, high in pairwise(below)), above)
            return tuple(count / magnitude.size for count in counts)
        # Only the official measure has padding.
        first_mask = (magnitude > 0) & (magnitude <= _OFFICIAL_EDGE)
        inner = [(magnitude > low) & (magnitude <= high) for low, high in pairwise(_EDGES)]
        return tuple(self._share(inside) for inside in (first_mask, *inner, magnitude > _EDGES[-1]))

    def _share(self, values: NDArray[Any]) -> float:
        """Return the mean over pixels, those of the padding included."""
        if self._padding == (0, 0):
            return _mean(values)
        if self._weights is None or self._weights.shape != values.shape:
            sides = zip(values.shape, self._sides, self._padding, strict=True)
            self._weights = np.outer(*(_weights(points, side, padding) for points, side, padding in sides))
        return float((values * self._weights).sum() / self._weights.sum())


def summarised(pairs: Sequence[PairMotion]) -> dict[str, Any]:
    """Return column -> value over all pairs of a clip; None where nothing was measured."""
    columns: dict[str, Any] = {
        "flow_mean": _average([pair.mean for pair in pairs]),
        "flow_global": _average([pair.dominant for pair in pairs]),
        "flow_residual": _average([pair.residual for pair in pairs]),
        "flow_valid_frac": _average([pair.valid_frac for pair in pairs]),
        "flow_pairs": len(pairs),
    }
    for i, name in enumerate(BUCKETS):
        columns[name] = _average([pair.buckets[i] for pair in pairs])
    for i, name in enumerate(WINDOWS):
        columns[name] = _average([pair.windows[i] for pair in pairs])
    five = np.array([columns[name] for name in WINDOWS]) if pairs else np.zeros(1)
    columns["flow5_cv"] = float(five.std() / five.mean()) if five.mean() > 0 else None
    return columns


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64))


def _magnitude(x: NDArray[np.float32], y: NDArray[np.float32], space: _Space) -> NDArray[np.float32]:
    """Return the magnitude, in memory that the next one takes."""
    np.multiply(x, x, out=space.magnitude)
    np.multiply(y, y, out=space.square)
    space.magnitude += space.square
    return np.sqrt(space.magnitude, out=space.magnitude)


def _windows(rows: int, columns: int) -> list[tuple[slice, slice]]:
    """Return the middle and the four corners of a picture, each half as high and half as wide."""
    h, w = max(1, rows // 2), max(1, columns // 2)
    top, left = (rows - h) // 2, (columns - w) // 2
    up, down, west, east = slice(0, h), slice(rows - h, rows), slice(0, w), slice(columns - w, columns)
    return [(slice(top, top + h), slice(left, left + w)), (up, west), (up, east), (down, west), (down, east)]


def _weights(points: int, side: int, padding: int) -> NDArray[np.float64]:
    """Return how many pixels of the padded side each of ``points`` samples stands for; the edges stand for padding."""
    weights = np.full(points, side / points)
    weights[0] += padding // 2
    weights[-1] += padding - padding // 2
    return weights
