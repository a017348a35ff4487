"""INT8 2:4 weights in plain torch: mask, quantize, pack."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.cusparselt import layout
from planish_kernels.mask24.bits import unpack_mask
from planish_kernels.row_quantize.reference import row_quantize_reference


def quantized24(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes ``[rows, cols]`` of the kept entries, zero elsewhere, and scales ``[rows]``.

    Args:
        weight: float ``[rows, cols]``.
        mask: bool ``[rows, cols]``.
    """
    unused = torch.zeros((), dtype=torch.int64, device=weight.device)
    return row_quantize_reference(torch.where(mask, weight, 0), False, unused, unused)


def row_pack24_reference(weight: Tensor, mask: Tensor, both_ways: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Packed codes and scales, by rows and by columns; see ``op.row_pack24``."""
    kept = unpack_mask(mask, weight.shape[1])
    codes, scales = quantized24(weight, kept)
    by_rows = layout.pack(codes, kept)
    if not both_ways:
        return by_rows, scales, by_rows.new_empty(0), scales.new_empty(0)
    col_codes, col_scales = quantized24(weight.t(), kept.t())
    return by_rows, scales, layout.pack(col_codes, kept.t()), col_scales
