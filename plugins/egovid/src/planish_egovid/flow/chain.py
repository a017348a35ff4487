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


@dataclass(frozen=True)
class LongFlow:
    """Flow between two frames of a track, at every ``grid``-th pixel.

    Attributes:
        first: Index of the first frame in the track.
        last: Index of the second frame.
        flow: float32 [rows, columns, 2], in pixels of the analysed picture. A pixel that cannot be followed, because it
            leaves the picture or does not lead back, has the dominant motion.
        valid: bool [rows, columns], pixels that were followed all the way.
        homography: float64 [3, 3], the dominant motion, or None; pixels that cannot be followed then keep what the
            search gave.
        grid: Spacing in pixels.
    """

    first: int
    last: int
    flow: NDArray[np.float32]
    valid: NDArray[np.bool_]
    homography: NDArray[np.float64] | None
    grid: int


def long_flows(track: FlowTrack, links: int) -> Iterator[LongFlow]:
    """Yield the flow over every ``links`` sampling steps: f ← f1 + f2(x + f1), bilinear.

    Where the video is slower than the sampling, frames repeat: such a step has no pair of its own, and one that starts
    and ends on the same frame is left out.

    Args:
        track: Flow between neighbouring sampled frames.
        links: Sampling steps that become one, at least 1. Steps that are left at the end are not used.
    """
    starts = track.frame_of[::links]
    for first, last in pairwise(starts):
        if first < last:
            yield _chained(track, int(first), int(last))


def _chained(track: FlowTrack, first: int, last: int) -> LongFlow:
    whole = _link(track, first)
    for pair in range(first + 1, last):
        whole = _joined(whole, _link(track, pair), track.images.shape[1:3])
    return whole


def _link(track: FlowTrack, pair: int) -> LongFlow:
    """Return the flow of one pair, with the dominant motion where it is not valid."""
    height, width = track.images.shape[1:3]
    flow, valid = track.forward[pair][:: track.grid, :: track.grid], track.valid[pair]
    homography = dominant_homography(flow, valid, track.grid, (height, width))
    if homography is not None:
        points = pixel_grid(height, width, track.grid)
        flow = np.where(valid[..., None], flow, _moved(points, homography) - points)
    return LongFlow(pair, pair + 1, np.ascontiguousarray(flow), valid, homography, track.grid)


def _joined(one: LongFlow, two: LongFlow, shape: tuple[int, ...]) -> LongFlow:
    height, width = shape
    middle = pixel_grid(height, width, one.grid) + one.flow
    cell = middle / one.grid
    with one_thread():
        rest = cv2.remap(two.flow, cell, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        followed = cv2.remap(
            two.valid.view(np.uint8), cell, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
    if two.homography is not None:
        outside = ~inside(middle, height, width)
        rest[outside] = _moved(middle[outside][None], two.homography)[0] - middle[outside]
    homography = None
    if one.homography is not None and two.homography is not None:
        homography = two.homography @ one.homography
        homography /= homography[2, 2]
    return LongFlow(one.first, two.last, one.flow + rest, one.valid & (followed > 0), homography, one.grid)


def _moved(points: NDArray[np.float32], homography: NDArray[np.float64]) -> NDArray[np.float32]:
    with one_thread():
        return np.asarray(cv2.perspectiveTransform(points, homography), np.float32)
