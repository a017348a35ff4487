"""Quantization by rows in plain torch: scales, then codes."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_quantize.reference import block_scales
from planish_kernels.philox import rounding_noise


def row_quantize_reference(dense: Tensor, stochastic: bool, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes ``[rows, cols]`` and scales ``[rows]``; see ``op.row_quantize``."""
    values = dense.to(torch.float32)
    scales = block_scales(values.abs().amax(1), torch.int8)  # amax keeps NaN
    # A ratio is NaN where the scale is, and nowhere else.
    ratio = (values / scales[:, None]).nan_to_num_(0.0)
    if stochastic:
        ratio += rounding_noise(seed, offset, *dense.shape).to(dense.device)
    return torch.round(ratio).to(torch.int8).contiguous(), scales
