"""An axis-aligned room with six textured walls, seen from inside by casting a ray per pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.errors import ConfigError

_PAD = 2
_CELLS_M = (1.28, 0.64, 0.32, 0.16, 0.08, 0.04)
"""Sizes of the noise cells, of a room in its usual size."""
_TEXEL_M = 0.01


@dataclass(frozen=True)
class Room:
    """A box around the world's origin.

    Attributes:
        seed: Of the textures and colours; another seed is another room.
        half_sizes_m: Half of the room's extent along x, y and z.
        scale: Factor on all lengths, textures included: a camera that moves ``scale`` times as far sees the same.
    """

    seed: int = 0
    half_sizes_m: tuple[float, float, float] = (3.0, 1.5, 4.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if min(self.half_sizes_m) <= 0 or self.scale <= 0:
            raise ConfigError(f"half_sizes_m {self.half_sizes_m} and scale {self.scale} must be positive")

    @property
    def bounds_m(self) -> NDArray[np.float64]:
        """Half sizes with the scale applied, float64 [3]."""
        return np.asarray(self.half_sizes_m, np.float64) * self.scale

    def scaled(self, factor: float) -> Room:
        """Return the same room, larger by ``factor``."""
        return replace(self, scale=self.scale * factor)

    def distance(self, origin: NDArray[np.float64], rays: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Follow rays to the walls.

        Args:
            origin: float64 [3], where the rays start, in the world.
            rays: float [3, ...], directions in the world, of any length.

        Returns:
            How many times its own length each ray reaches, in the type of ``rays``, and the axis (0, 1, 2) that its
            wall is perpendicular to; both of shape [...].

        Raises:
            ConfigError: The rays start outside the room.
        """
        bounds = self.bounds_m
        if not (np.abs(origin) < bounds).all():
            raise ConfigError(
                f"camera at {np.round(origin, 3).tolist()} m is outside the room of half sizes {bounds.tolist()} m; "
                "shorten the clip, slow the walk or start elsewhere"
            )
        kind = rays.dtype.type
        with np.errstate(divide="ignore", invalid="ignore"):
            reaches = [
                (np.where(ray > 0, kind(bound - start), kind(-bound - start)) / ray)
                for ray, bound, start in zip(rays, bounds, origin)
            ]
        for reach, ray in zip(reaches, rays):
            reach[ray == 0] = np.inf
        nearest = np.minimum(np.minimum(reaches[0], reaches[1]), reaches[2])
        axis = np.where(reaches[0] == nearest, 0, np.where(reaches[1] == nearest, 1, 2))
        return nearest, axis

    def colours(self, origin: NDArray[np.float64], rays: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return what rays see.

        Args:
            origin: float64 [3], where the rays start, in the world.
            rays: float32 [3, height, width], directions in the world.

        Returns:
            uint8 [height, width, 3], RGB.
        """
        reach, axis = self.distance(origin, rays)
        hit = [np.float32(start) + reach * ray for start, ray in zip(origin, rays)]
        across = np.where(axis == 2, hit[0], hit[2])
        along = np.where(axis == 1, hit[0], hit[1])
        facing = np.take_along_axis(rays, axis[None], axis=0)[0] > 0
        wall = axis * 2 + facing
        atlas, left, centre_across, centre_along = _atlas(self.seed, self.half_sizes_m)
        per_metre = np.float32(1 / (_TEXEL_M * self.scale))
        x = across * per_metre + (centre_across + left)[wall]
        y = along * per_metre + centre_along[wall]
        return cv2.remap(atlas, x, y, cv2.INTER_LINEAR)


@lru_cache(maxsize=4)
def _atlas(
    seed: int, half_sizes_m: tuple[float, float, float]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return all walls side by side, and for each wall its left edge and the texel of its middle."""
    random = np.random.default_rng([seed, 5])
    half_x, half_y, half_z = half_sizes_m
    # Walls across x show (z, y), those across y show (z, x), those across z show (x, y).
    halves = [(half_z, half_y)] * 2 + [(half_z, half_x)] * 2 + [(half_x, half_y)] * 2
    walls = [wall_texture(random, round(2 * h / _TEXEL_M), round(2 * w / _TEXEL_M)) for w, h in halves]
    padded = [cv2.copyMakeBorder(wall, _PAD, _PAD, _PAD, _PAD, cv2.BORDER_REPLICATE) for wall in walls]
    height = max(wall.shape[0] for wall in padded)
    atlas = np.zeros((height, sum(wall.shape[1] for wall in padded), 3), np.uint8)
    lefts, start = [], 0
    for wall in padded:
        atlas[: wall.shape[0], start : start + wall.shape[1]] = wall
        lefts.append(start)
        start += wall.shape[1]
    across = [wall.shape[1] / 2 - 0.5 for wall in padded]
    along = [wall.shape[0] / 2 - 0.5 for wall in padded]
    return atlas, np.asarray(lefts, np.float32), np.asarray(across, np.float32), np.asarray(along, np.float32)


def wall_texture(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Return a texture with detail in every octave and some hard edges; a texel is a centimetre.

    Args:
        random: Where the texture comes from.
        height: Texels.
        width: Texels.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    light = sum(cell**0.5 * _noise(random, height, width, cell / _TEXEL_M) for cell in _CELLS_M) + 0.35 * np.sign(
        _noise(random, height, width, 0.5 / _TEXEL_M)
    )
    light = light / np.std(light)
    tint = random.uniform(-28, 28, 3)
    base = random.uniform(105, 150)
    channels = [base + tint[c] + 34 * light + 10 * _noise(random, height, width, 100.0) for c in range(3)]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def _noise(random: np.random.Generator, height: int, width: int, cell: float) -> NDArray[np.float32]:
    """Return smooth noise around 0 whose cells measure ``cell`` texels."""
    grid = random.uniform(-1, 1, (int(np.ceil(height / cell)) + 2, int(np.ceil(width / cell)) + 2)).astype(np.float32)
    rows, columns = round(grid.shape[0] * cell), round(grid.shape[1] * cell)
    return cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC)[:height, :width]
