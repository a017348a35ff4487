"""Scaling by rows and columns: each entry is read and written once."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _COLS = 4, 1024


@triton.jit
def _rescale_kernel(product, row_scales, col_scales, out, rows, cols, ROWS: tl.constexpr, COLS: tl.constexpr):
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.program_id(0).to(tl.int64) * COLS + tl.arange(0, COLS)
    by_row = tl.load(row_scales + row, mask=row < rows, other=0.0)
    by_col = tl.load(col_scales + col, mask=col < cols, other=0.0)
    inside = (row[:, None] < rows) & (col[None, :] < cols)
    here = row[:, None] * cols + col[None, :]
    value = tl.load(product + here, mask=inside, other=0).to(tl.float32)
    tl.store(out + here, (value * by_row[:, None] * by_col[None, :]).to(out.dtype.element_ty), mask=inside)


def row_rescale_triton(product: Tensor, row_scales: Tensor, col_scales: Tensor, out_dtype: torch.dtype) -> Tensor:
    """The scaled product; see ``planish_kernels.row_rescale.row_rescale``. ``product`` is row-major."""
    rows, cols = product.shape
    out = torch.empty((rows, cols), dtype=out_dtype, device=product.device)
    if out.numel() == 0:
        return out
    with torch.cuda.device_of(product):
        _rescale_kernel[(triton.cdiv(cols, _COLS), triton.cdiv(rows, _ROWS))](
            product, row_scales, col_scales, out, rows, cols, ROWS=_ROWS, COLS=_COLS, num_warps=4
        )
    return out
