"""Scaling by rows and columns in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def row_rescale_reference(product: Tensor, row_scales: Tensor, col_scales: Tensor, out_dtype: torch.dtype) -> Tensor:
    """``product * row_scales[:, None] * col_scales`` in float32 (float64 for float64), then in ``out_dtype``."""
    compute = torch.float64 if out_dtype is torch.float64 else torch.float32
    return (product.to(compute) * row_scales.to(compute)[:, None] * col_scales.to(compute)).to(out_dtype)
