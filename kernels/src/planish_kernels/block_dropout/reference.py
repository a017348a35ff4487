"""Dropout of block-scaled operands in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.philox import element_uniforms

DRAWS = 2**23
"""Different values of a uniform: what the probability of dropping is counted in."""
STREAM = 1 << 32
"""Flipped in the seed, so that the mask is independent of stochastic rounding under the same seed and offset."""


def dropped_draws(p: float) -> int:
    """How many of the ``DRAWS`` equally likely draws drop an element; at least one keeps it."""
    return min(round(p * DRAWS), DRAWS - 1)


def keep_mask(seed: Tensor, offset: Tensor, rows: int, cols: int, dropped: int) -> Tensor:
    """Boolean ``[rows, cols]``: which elements stay."""
    return element_uniforms(seed ^ STREAM, offset, rows, cols) >= dropped / DRAWS


def divided_scales(scales: Tensor, dropped: int) -> Tensor:
    """``scales / (1 - p)``, rounded to the nearest number of 17 significant bits; NaN where it overflows."""
    quotient = scales / (1 - dropped / DRAWS)
    bits = quotient.view(torch.int32)
    rounded = ((bits + 0x3F + ((bits >> 7) & 1)) & ~0x7F).view(torch.float32)
    return torch.where(rounded.isfinite(), rounded, torch.nan)


def block_dropout_reference(
    codes: Tensor, scales: Tensor, block: int, dropped: int, seed: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    """Codes and scales; see ``op.block_dropout``. ``block`` does not matter here."""
    rows, cols = codes.shape
    keep = keep_mask(seed, offset, rows, cols, dropped).to(codes.device)
    # where() of float8 is not everywhere; its bytes are the same in either type.
    kept = torch.where(keep, codes.view(torch.int8), 0).contiguous()
    return kept.view(codes.dtype), divided_scales(scales, dropped)
