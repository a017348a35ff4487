"""A pinhole camera without distortion."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians, tan

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; the centre of the top left pixel is (0, 0).

    Attributes:
        width: Pixels.
        height: Pixels.
        fov_deg: Horizontal field of view in degrees.
    """

    width: int = 480
    height: int = 270
    fov_deg: float = 90.0

    @property
    def focal_px(self) -> float:
        """Focal length in pixels, the same in both directions."""
        return self.width / 2 / tan(radians(self.fov_deg) / 2)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Intrinsic matrix, float64 [3, 3]."""
        focal = self.focal_px
        return np.array([[focal, 0, (self.width - 1) / 2], [0, focal, (self.height - 1) / 2], [0, 0, 1]])

    def rays(self, samples: int = 1) -> NDArray[np.float64]:
        """Return directions with z = 1 in camera axes, float64 [3, height * samples, width * samples].

        Args:
            samples: Rays per pixel and side, spread evenly over the pixel; one goes through its centre.
        """
        x = (np.arange(self.width * samples) + 0.5) / samples - 0.5
        y = (np.arange(self.height * samples) + 0.5) / samples - 0.5
        centre_x, centre_y = (self.width - 1) / 2, (self.height - 1) / 2
        shape = (len(y), len(x))
        return np.stack(
            [
                np.broadcast_to((x - centre_x)[None, :] / self.focal_px, shape),
                np.broadcast_to((y - centre_y)[:, None] / self.focal_px, shape),
                np.ones(shape),
            ]
        )

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pixels that points in camera axes fall on.

        Args:
            points: float64 [3, ...], metres, in front of the camera.

        Returns:
            float64 [2, ...]: x and y in pixels.
        """
        x = points[0] / points[2] * self.focal_px + (self.width - 1) / 2
        y = points[1] / points[2] * self.focal_px + (self.height - 1) / 2
        return np.stack([x, y])
