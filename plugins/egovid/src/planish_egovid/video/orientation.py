"""Which way up a frame is shown: the display matrix of phones and action cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planish_egovid.video.errors import ClipDecodeError


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become upright ones: first mirrored, then turned.

    Attributes:
        rotation: Clockwise degrees: 0, 90, 180 or 270.
        mirrored: Whether left and right are swapped before the turn.
    """

    rotation: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether width becomes height."""
        return self.rotation % 180 == 90

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image [height, width, ...] turned upright, contiguous."""
        if self.mirrored:
            image = image[:, ::-1]
        if self.rotation:
            image = np.rot90(image, -(self.rotation // 90))
        return np.ascontiguousarray(image)


def orientation_of(frame: Any) -> Orientation:
    """Return the orientation that a decoded frame asks for.

    Raises:
        ClipDecodeError: The display matrix is no turn by a multiple of 90 degrees.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    matrix = np.frombuffer(bytes(data), dtype=np.int32)
    if matrix.size != 9:
        return Orientation()
    return orientation_of_matrix(*(float(matrix[i]) for i in (0, 1, 3, 4)))


def orientation_of_matrix(a: float, b: float, c: float, d: float) -> Orientation:
    """Return the orientation of a display matrix, which maps (x, y) to (a x + c y, b x + d y), with y downwards.

    Raises:
        ClipDecodeError: It is no turn by a multiple of 90 degrees, possibly mirrored.
    """
    size = max(abs(a), abs(b), abs(c), abs(d))
    straight = abs(a) + abs(d) > abs(b) + abs(c)
    off = max(abs(b), abs(c)) if straight else max(abs(a), abs(d))
    on = min(abs(a), abs(d)) if straight else min(abs(b), abs(c))
    if size == 0 or off > 0.02 * size or on < 0.5 * size:
        raise ClipDecodeError(
            f"display matrix ({a:g}, {b:g}; {c:g}, {d:g}) is no turn by a multiple of 90 degrees; "
            "re-encode the file upright"
        )
    down = (0, 1 if d > 0 else -1) if straight else (1 if c > 0 else -1, 0)
    rotation = {(0, 1): 0, (-1, 0): 90, (0, -1): 180, (1, 0): 270}[down]
    return Orientation(rotation, mirrored=a * d - b * c < 0)
