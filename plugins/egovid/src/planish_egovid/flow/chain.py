"""Long flow out of short ones: DIS falls short of what moves far, but not of half of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.flow.dominant import dominant_homography
from planish_egovid.flow.one_thread import one_thread
from planish_egovid.flow.pixel_grid import inside, pixel_grid
from planish_egovid.flow.track import FlowTrack

LOST = 0.2
"""A pixel that is not valid is lost if going there and back misses it by more than this share of the way.

Some miss by a pixel or two only because they go far; DIS is nearer to the truth there than the dominant motion. On
plain walls DIS drifts, and no share of the way leads back.
"""


@dataclass(frozen=True)
class LongFlow:
    """Flow between two frames of a track, at every ``grid``-th pixel.

    Attributes:
        first: Index of the first frame in the track.
        last: Index of the second frame.
        flow: float32 [rows, columns, 2], in pixels of the analysed picture. If filled, pixels that leave the picture
            or are lost have the dominant motion.
        valid: bool [rows, columns], pixels that were followed all the way.
        homography: float64 [3, 3], the dominant motion, or None; nothing is filled then.
        grid: Spacing in pixels.
    """

    first: int
    last: int
    flow: NDArray[np.float32]
    valid: NDArray[np.bool_]
    homography: NDArray[np.float64] | None
    grid: int


def long_flows(track: FlowTrack, links: int, *, filled: bool = True) -> Iterator[LongFlow]:
    """Yield the flow over every ``links`` sampling steps: f ← f1 + f2(x + f1), bilinear.

    Where the video is slower than the sampling, frames repeat: such a step has no pair of its own, and one that starts
    and ends on the same frame is left out.

    Args:
        track: Flow between neighbouring sampled frames.
        links: Sampling steps that become one, at least 1. Steps that are left at the end are not used.
        filled: Whether pixels that leave the picture or are lost get the dominant motion; otherwise they keep what the
            search gave.
    """
    starts = track.frame_of[::links]
    for first, last in pairwise(starts):
        if first < last:
            whole = _link(track, int(first), filled)
            for pair in range(first + 1, last):
                whole = _joined(whole, _link(track, pair, filled), track.images.shape[1:3], filled)
            yield whole


def _link(track: FlowTrack, pair: int, filled: bool) -> LongFlow:
    height, width = track.images.shape[1:3]
    flow, valid, grid = track.forward[pair][:: track.grid, :: track.grid], track.valid[pair], track.grid
    homography = dominant_homography(flow, valid, grid, (height, width))
    if filled and homography is not None:
        points = pixel_grid(height, width, grid)
        x, y = flow[..., 0], flow[..., 1]
        lost = ~valid & (track.return_px[pair] > LOST * np.sqrt(x * x + y * y))
        flow = flow.copy()
        flow[lost] = _moved(points[lost], homography) - points[lost]
    return LongFlow(pair, pair + 1, np.ascontiguousarray(flow), valid, homography, grid)


def _joined(one: LongFlow, two: LongFlow, shape: tuple[int, ...], filled: bool) -> LongFlow:
    height, width = shape
    middle = pixel_grid(height, width, one.grid) + one.flow
    cell = middle / one.grid
    with one_thread():
        rest = cv2.remap(two.flow, cell, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        followed = cv2.remap(two.valid.view(np.uint8), cell, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    if filled and two.homography is not None:
        outside = ~inside(middle, height, width)
        rest[outside] = _moved(middle[outside], two.homography) - middle[outside]
    homography = None
    if one.homography is not None and two.homography is not None:
        homography = two.homography @ one.homography
        homography /= homography[2, 2]
    return LongFlow(one.first, two.last, one.flow + rest, one.valid & (followed > 0), homography, one.grid)


def _moved(points: NDArray[np.float32], homography: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return where a homography takes float32 [points, 2]."""
    if not len(points):
        return points
    with one_thread():
        return np.asarray(cv2.perspectiveTransform(points[None], homography)[0], np.float32)
