"""Clips that many tests look at."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from planish_egovid.testing.fixtures import *  # noqa: F403

Texture = Callable[..., NDArray[np.uint8]]


@lru_cache(maxsize=8)
def _moving_texture(frames: int, width: int, height: int, seed: int, step: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    wide = width + frames * step
    sheet = np.zeros((height, wide, 3), np.float32)
    for octave in (4, 12, 36):
        patch = random.random((height // octave + 2, wide // octave + 2, 3), dtype=np.float32)
        sheet += cv2.resize(patch, (wide, height), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(sheet * 85, 0, 255).astype(np.uint8)
    made = np.stack([picture[:, i * step : i * step + width] for i in range(frames)])
    made.flags.writeable = False
    return made


@pytest.fixture(scope="session")
def moving_texture() -> Texture:
    """``moving_texture(frames, width, height, seed, step)``: RGB frames that a texture slides through."""

    def make(frames: int = 30, width: int = 96, height: int = 64, seed: int = 0, step: int = 2) -> NDArray[np.uint8]:
        return _moving_texture(frames, width, height, seed, step)

    return make
