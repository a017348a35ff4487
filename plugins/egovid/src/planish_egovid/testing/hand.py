"""A textured rectangle that swings before the camera, as the wearer's hand does."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.testing.room import wall_texture


@dataclass(frozen=True)
class Hand:
    """A rectangle that faces the camera, moves with it, and swings in camera axes.

    Attributes:
        centre_m: Middle of its path in camera axes: right, down, forward.
        size_m: Width and height.
        swing_m: How far it swings to either side of the middle, right and down.
        swing_hz: Swings a second.
        seed: Of its texture.
    """

    centre_m: tuple[float, float, float] = (0.12, 0.08, 0.5)
    size_m: tuple[float, float] = (0.22, 0.18)
    swing_m: tuple[float, float] = (0.1, 0.04)
    swing_hz: float = 0.7
    seed: int = 0

    def centre(self, time_s: float) -> NDArray[np.float64]:
        """Return where its middle is, float64 [3], metres in camera axes."""
        swing = sin(2 * pi * self.swing_hz * time_s)
        x, y, z = self.centre_m
        return np.array([x + self.swing_m[0] * swing, y + self.swing_m[1] * swing, z])

    def covers(self, rays: NDArray[np.floating], time_s: float) -> NDArray[np.bool_]:
        """Return which rays meet it.

        Args:
            rays: float [3, ...] with z = 1, in camera axes.
            time_s: Seconds from the clip's start.
        """
        x, y = self._across(rays, time_s)
        return (np.abs(x) < self.size_m[0] / 2) & (np.abs(y) < self.size_m[1] / 2)

    def paint(self, image: NDArray[np.uint8], rays: NDArray[np.floating], time_s: float) -> None:
        """Draw it over ``image`` (uint8 [height, width, 3]) where ``rays`` meet it."""
        covered = self.covers(rays, time_s)
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        if not len(rows):
            return
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        x, y = self._across(rays[:, box[0], box[1]], time_s)
        texture = self._texture()
        height, width = texture.shape[:2]
        texel_x = ((x / self.size_m[0] + 0.5) * width - 0.5).astype(np.float32)
        texel_y = ((y / self.size_m[1] + 0.5) * height - 0.5).astype(np.float32)
        sampled = cv2.remap(texture, texel_x, texel_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        image[box][covered[box]] = sampled[covered[box]]

    def _across(self, rays: NDArray[np.floating], time_s: float) -> tuple[NDArray[Any], NDArray[Any]]:
        x, y, z = self.centre(time_s)
        return rays[0] * z - x, rays[1] * z - y

    def _texture(self) -> NDArray[np.uint8]:
        random = np.random.default_rng([self.seed, 7])
        return wall_texture(random, 72, 88)
