"""2:4 masks by exhaustive search, in plain torch: what the kernels are held against."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.mask24.patterns import transposable_patterns

_BLOCKS_AT_ONCE = 1 << 16


def transposable_mask_reference(weight: Tensor) -> Tensor:
    """Bool ``[rows, cols]``: of the ninety patterns the one that keeps the largest sum of magnitudes in each 4x4 block.

    Sums are in float64, term by term; the lowest pattern number wins a tie. A pattern whose sum is NaN loses to every
    other.
    """
    rows, cols = weight.shape
    patterns = transposable_patterns().to(weight.device).view(90, 16)
    terms = patterns.nonzero()[:, 1].view(90, 8)
    blocks = weight.detach().abs().reshape(rows // 4, 4, cols // 4, 4).transpose(1, 2).reshape(-1, 16)
    mask = torch.zeros((blocks.shape[0], 16), dtype=torch.bool, device=weight.device)
    for start in range(0, blocks.shape[0], _BLOCKS_AT_ONCE):
        part = blocks[start : start + _BLOCKS_AT_ONCE].to(torch.float64)
        scores = part[:, terms[:, 0]]
        for term in range(1, 8):
            scores = scores + part[:, terms[:, term]]
        scores = torch.where(scores.isnan(), -1.0, scores)
        is_best = scores == scores.amax(dim=1, keepdim=True)
        lowest_best = is_best.cumsum(dim=1).eq(0).sum(dim=1)
        mask[start : start + _BLOCKS_AT_ONCE] = patterns[lowest_best]
    return mask.view(rows // 4, cols // 4, 4, 4).transpose(1, 2).reshape(rows, cols)


def rowwise_mask_reference(weight: Tensor) -> Tensor:
    """Bool ``[rows, cols]``: the two largest magnitudes of every four columns; the lower column wins a tie.

    NaN ranks below every number.
    """
    rows, cols = weight.shape
    magnitudes = weight.detach().abs().reshape(rows, cols // 4, 4)
    magnitudes = torch.where(magnitudes.isnan(), -1, magnitudes)
    mine, other = magnitudes.unsqueeze(-1), magnitudes.unsqueeze(-2)
    places = torch.arange(4, device=weight.device)
    is_ahead = (other > mine) | ((other == mine) & (places < places.unsqueeze(-1)))
    return (is_ahead.sum(-1) < 2).view(rows, cols)


def flip_count_reference(bits: Tensor, other_bits: Tensor) -> Tensor:
    """Number of differing bits of two uint8 tensors, as a 0-d int64 tensor."""
    flips = (bits ^ other_bits).to(torch.int32)  # torch shifts bytes one by one on CPUs
    flips = flips - ((flips >> 1) & 0x55)
    flips = (flips & 0x33) + ((flips >> 2) & 0x33)
    return ((flips + (flips >> 4)) & 0x0F).sum(dtype=torch.int64)
