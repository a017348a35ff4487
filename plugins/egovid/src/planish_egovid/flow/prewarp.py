"""Flow of a pair that is too far apart for DIS: align it by a homography first, and find what is left.

A head turn moves the whole picture by a homography; what remains after it, parallax and hands, is small.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.flow.dis import DisFlow
from planish_egovid.flow.one_thread import one_thread
from planish_egovid.flow.pixel_grid import pixel_grid

ORB_FEATURES = 500
FEWEST_MATCHES = 16
"""Fewer matches than this fit a homography by accident."""
RANSAC_PX = 3.0


class Aligner:
    """Aligns neighbouring frames of one clip by ORB matches and RANSAC; describes each frame once."""

    def __init__(self) -> None:
        """Start a clip."""
        self._orb = cv2.ORB.create(nfeatures=ORB_FEATURES, fastThreshold=7)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
        self._described: dict[int, tuple[NDArray[np.float32], NDArray[np.uint8] | None]] = {}

    def __call__(self, frame: int, images: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Return the homography [3, 3] that takes pixels of a frame to the next one.

        Args:
            frame: Index of the first of the two frames.
            images: uint8 [frames, height, width].

        Returns:
            None if too few matches agree on one, or if it folds, mirrors or shrinks the picture beyond what a camera
            can do.
        """
        self._described = {i: self._described.get(i) or self._describe(images[i]) for i in (frame, frame + 1)}
        (here, described), (there, other) = self._described.values()
        if described is None or other is None:
            return None
        with one_thread():
            matches = self._matcher.match(described, other)
            if len(matches) < FEWEST_MATCHES:
                return None
            first = here[[match.queryIdx for match in matches]]
            second = there[[match.trainIdx for match in matches]]
            homography, agree = cv2.findHomography(first, second, cv2.RANSAC, RANSAC_PX)
        if homography is None or np.count_nonzero(agree) < FEWEST_MATCHES:
            return None
        found = np.asarray(homography, np.float64)
        return found if keeps_orientation(found, images.shape[1:3]) else None

    def _describe(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        with one_thread():
            points, described = self._orb.detectAndCompute(image, None)
        places = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
        return places, None if described is None else np.asarray(described, np.uint8)


def keeps_orientation(homography: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether the picture stays in front of the camera and unmirrored, and changes its area less than fourfold."""
    height, width = shape[:2]
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [width - 1, height - 1, 1], [0, height - 1, 1]], np.float64)
    mapped = corners @ homography.T
    if (mapped[:, 2] <= 1e-3).any():
        return False
    x, y = (mapped[:, :2] / mapped[:, 2:]).T
    area = 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    return 0.25 < area / ((width - 1) * (height - 1)) < 4.0


def inverse(homography: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the homography that goes back, scaled to a last element of 1."""
    back = np.linalg.inv(homography)
    return np.asarray(back / back[2, 2], np.float64)


def homography_flow(homography: NDArray[np.float64], height: int, width: int, grid: int = 1) -> NDArray[np.float32]:
    """Return float32 [ceil(height / grid), ceil(width / grid), 2]: where a homography moves every ``grid``-th pixel."""
    points = pixel_grid(height, width, grid)
    with one_thread():
        moved = cv2.perspectiveTransform(points, homography)
    return np.asarray(moved - points, np.float32)


def aligned_flow(
    first: NDArray[np.uint8], second: NDArray[np.uint8], homography: NDArray[np.float64], search: DisFlow
) -> NDArray[np.float32]:
    """Return float32 [height, width, 2], the flow from ``first`` to ``second``, found after aligning them.

    Args:
        first: uint8 [height, width].
        second: uint8 [height, width].
        homography: float64 [3, 3], roughly takes pixels of ``first`` to ``second``.
        search: Finds what the homography leaves.
    """
    height, width = first.shape
    points = pixel_grid(height, width, 1)
    with one_thread():
        source = cv2.perspectiveTransform(points, homography)
        aligned = cv2.remap(second, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rest = search.pair(first, aligned)
    with one_thread():
        moved = cv2.perspectiveTransform(points + rest, homography)
    return np.asarray(moved - points, np.float32)
