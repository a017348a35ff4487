"""Block quantization in plain torch: scales, then codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from planish_kernels.philox import rounding_noise

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
SMALLEST_SCALE = 2.0**-120
"""Of blocks that are zero or nearly so: far from where float32 loses bits, far below any real activation."""
DROPPED_BITS = 0x7F
"""Low bits of a scale that are zero: 17 significant bits times the 7 of an int8 code are exact in float32."""


def block_scales(largest_magnitude: Tensor, code_dtype: torch.dtype) -> Tensor:
    """The scale of each block from its largest magnitude (float32): rounded up to 17 bits; NaN if it is not finite.

    Rounding up by less than 2^-16 keeps every code within bounds, and lets the largest one still round to its bound,
    so that quantizing a decoded matrix again gives the same codes and scales.
    """
    # By a tensor: on a GPU torch multiplies by the reciprocal of a number, which is another quotient.
    divisor = torch.full_like(largest_magnitude, LARGEST[code_dtype])
    quotient = (largest_magnitude / divisor).clamp_min(SMALLEST_SCALE)
    rounded = ((quotient.view(torch.int32) + DROPPED_BITS) & ~DROPPED_BITS).view(torch.float32)
    return torch.where(largest_magnitude.isfinite(), rounded, torch.nan)


def round_to_float8(ratio: Tensor, noise: Tensor | None) -> Tensor:
    """float8 e4m3 codes of ratios within ±448: the nearest (ties to even), or one of the two neighbours at random."""
    if noise is None:
        return ratio.to(torch.float8_e4m3fn)
    # Neighbours are a step of 2^(exponent - 3) apart, of 2^-9 below the smallest normal number 2^-6.
    exponent = torch.frexp(ratio.abs().clamp_min(2.0**-6)).exponent - 1
    step = torch.ldexp(torch.ones_like(ratio), exponent - 3)
    return (torch.round(ratio / step + noise) * step).to(torch.float8_e4m3fn)


def block_quantize_reference(
    dense: Tensor, code_dtype: torch.dtype, block: int, stochastic: bool, seed: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    """Codes ``[rows, cols]`` and scales ``[ceil(rows / block), ceil(cols / block)]``; see ``op.block_quantize``."""
    rows, cols = dense.shape
    padded = F.pad(dense.to(torch.float32), (0, -cols % block, 0, -rows % block))
    tiles = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block)
    scales = block_scales(tiles.abs().amax((1, 3)), code_dtype)  # amax keeps NaN
    # A ratio is NaN where the scale is, and nowhere else.
    ratio = (tiles / scales[:, None, :, None]).nan_to_num_(0.0).reshape(padded.shape)[:rows, :cols]
    noise = rounding_noise(seed, offset, rows, cols).to(dense.device) if stochastic else None
    if code_dtype is torch.float8_e4m3fn:
        return round_to_float8(ratio, noise).contiguous(), scales
    # Scales are rounded up: no ratio is beyond 127 by more than its own last bit, so no code is beyond it.
    return torch.round(ratio if noise is None else ratio + noise).to(torch.int8).contiguous(), scales
