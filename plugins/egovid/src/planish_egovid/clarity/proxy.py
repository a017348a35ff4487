"""clarity_proxy: sharpness, blocks, noise and exposure of sampled frames as one number.

A stand-in for a learned quality model where none is installed. Its direction is right for each fault that it measures;
its scale is planish's own and not DOVER's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np
from numpy.typing import NDArray

from planish_egovid.clarity.blockiness import blockiness
from planish_egovid.clarity.exposure import black_borders, clipped_shares
from planish_egovid.clarity.sharpness import measure_detail

_HALF_SHARP = 0.35
"""``fineness`` that counts half: a photograph blurred by a Gaussian of 1.5 px."""
_STEEPNESS = 2.5
_FREE_BLOCKINESS, _BLOCKINESS_SCALE = 0.1, 0.8
_FREE_NOISE, _NOISE_SCALE = 3.0, 12.0
"""Grey levels: dense texture in a small picture is taken for up to 3 levels of noise."""


@dataclass(frozen=True)
class Clarity:
    """Clarity of a clip: medians over its sampled frames, within black borders. None: could not be told.

    Attributes:
        proxy: Product of what follows, 0 (nothing to be seen) to 1.
        sharpness: 0 to 1, half for a blur of about 1.5 px.
        noise_sigma: Grey levels.
        blockiness: 1 without blocks.
        dark_frac: Share of nearly black pixels.
        bright_frac: Share of nearly white pixels.
        border_frac: Share of the frame that is black border.
    """

    proxy: float
    sharpness: float | None
    noise_sigma: float
    blockiness: float | None
    dark_frac: float
    bright_frac: float
    border_frac: float

    @classmethod
    def of(cls, frames: NDArray[np.uint8]) -> Clarity:
        """Measure gray frames as decoded, uint8 [frames, height, width], at least one."""
        borders = black_borders(frames)
        seen = [np.ascontiguousarray(frame[borders.rows, borders.columns]) for frame in frames]
        details = [measure_detail(frame) for frame in seen]
        clipped = [clipped_shares(frame) for frame in seen]
        fineness = _median([detail.fineness for detail in details])
        noise = float(np.median([detail.noise_sigma for detail in details]))
        blocks = _median([blockiness(frame) for frame in seen])
        dark, bright = (float(np.median(shares)) for shares in zip(*clipped, strict=True))
        sharpness = None if fineness is None else sharpness_of(fineness)
        proxy = (
            (sharpness or 0.0)
            * exp(-max(0.0, (blocks or 1.0) - 1.0 - _FREE_BLOCKINESS) / _BLOCKINESS_SCALE)
            * exp(-max(0.0, noise - _FREE_NOISE) / _NOISE_SCALE)
            # Night is darker than an overexposed day is bright: half a dark picture still shows something.
            * (1.0 - dark**2)
            * (1.0 - bright)
        )
        return cls(proxy, sharpness, noise, blocks, dark, bright, borders.share)


def sharpness_of(fineness: float) -> float:
    """Return sharpness from 0 to 1 for an amplitude ratio of fine to coarse detail."""
    return 1.0 - 1.0 / (1.0 + (fineness / _HALF_SHARP) ** _STEEPNESS)


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
