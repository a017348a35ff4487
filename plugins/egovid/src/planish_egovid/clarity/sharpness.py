"""Sharpness and noise of a gray picture, from its finest details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ANALYSED = 960
"""Longer side in pixels beyond which a picture is reduced, so that 1080p and 540p of one scene score alike."""
_BLOCK = 16
_FLAT = 0.1
"""Share of the blocks, the flattest ones, in which what varies is taken for noise."""
_FLATTEST_TO_SIGMA = 1.12
"""Standard deviation of white noise over Immerkær's estimate in the flattest tenth of the blocks."""
_NOISE_IN_BANDS = (0.892, 0.053, 0.0103)
"""Energy of white noise of variance 1 in the three finest bands of a Laplacian pyramid."""
_IMMERKAER: NDArray[np.float32] = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_LEAST_DETAIL = 0.25
"""Energy in grey levels squared below which a picture has no detail to be sharp in."""


@dataclass(frozen=True)
class Detail:
    """Detail of a picture.

    Attributes:
        fineness: Amplitude of the finest details over that of details four times as large; about 1 in a sharp
            photograph of anything, because natural pictures look alike at all scales. None without detail.
        noise_sigma: Standard deviation of noise in grey levels, as far as it stands out where the picture is flattest.
    """

    fineness: float | None
    noise_sigma: float


def measure_detail(gray: NDArray[np.uint8]) -> Detail:
    """Return the detail of a gray picture, uint8 [height, width]. White noise is taken out of the fineness.

    Bands are those of a Laplacian pyramid (Burt and Adelson, 1983); noise after Immerkær, 1996.
    """
    longer = max(gray.shape)
    if longer > ANALYSED:
        factor = ANALYSED / longer
        gray = _as_uint8(cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    sigma = noise_sigma(gray)
    levels: list[Any] = [gray.astype(np.float32)]
    for _ in range(3):
        levels.append(cv2.pyrDown(levels[-1]))
    energies = [_band_energy(levels[i], levels[i + 1]) for i in (0, 2)]
    fine = energies[0] - _NOISE_IN_BANDS[0] * sigma**2
    coarse = energies[1] - _NOISE_IN_BANDS[2] * sigma**2
    if coarse < _LEAST_DETAIL:
        return Detail(None, sigma)
    return Detail(float(np.sqrt(max(fine, 0.0) / coarse)), sigma)


def noise_sigma(gray: NDArray[np.uint8]) -> float:
    """Return the standard deviation of noise in grey levels, from the flattest tenth of 16 by 16 blocks."""
    rows, columns = gray.shape[0] // _BLOCK, gray.shape[1] // _BLOCK
    if not rows or not columns:
        return 0.0
    # Halved, so that strong noise still fits into eight bits.
    response = cv2.convertScaleAbs(cv2.filter2D(gray, cv2.CV_16S, _IMMERKAER), alpha=0.5)
    blocks = cv2.resize(
        response[: rows * _BLOCK, : columns * _BLOCK].astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA
    )
    return float(np.quantile(blocks, _FLAT)) * 2 * float(np.sqrt(np.pi / 2)) / 6 * _FLATTEST_TO_SIGMA


def _band_energy(level: Any, next_level: Any) -> float:
    band = cv2.subtract(level, cv2.pyrUp(next_level, dstsize=(level.shape[1], level.shape[0])))
    return float(cv2.norm(band, cv2.NORM_L2SQR)) / band.size


def _as_uint8(image: Any) -> NDArray[np.uint8]:
    return np.asarray(image, np.uint8)
