"""Residual sums in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_norm.reference import row_statistics_reference
from planish_kernels.block_quantize.reference import block_quantize_reference
from planish_kernels.formats.block_scaled import decoded


def block_add_reference(
    residual: Tensor,
    codes: Tensor,
    scales: Tensor,
    block: int,
    is_rms: bool,
    eps: float,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum in the residual's dtype, its codes and scales, and float32 ``[2, rows]`` statistics of the latter."""
    total = (residual.to(torch.float32) + decoded(codes, scales, block)).to(residual.dtype)
    out_codes, out_scales = block_quantize_reference(total, codes.dtype, block, stochastic, seed, offset)
    return total, out_codes, out_scales, row_statistics_reference(out_codes, out_scales, block, is_rms, eps)
