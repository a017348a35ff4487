"""Transposed copies of 8-bit matrices: tensor cores read 8-bit operands along the inner dimension alone."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 128


@triton.jit
def _turn_kernel(matrix, turned, rows, cols, stride, turned_stride, TILE: tl.constexpr):
    tile_row, tile_col = tl.program_id(0), tl.program_id(1)
    row = tile_row.to(tl.int64) * TILE + tl.arange(0, TILE)
    col = tile_col.to(tl.int64) * TILE + tl.arange(0, TILE)
    values = tl.load(
        matrix + row[:, None] * stride + col[None, :], mask=(row[:, None] < rows) & (col[None, :] < cols), other=0
    )
    inside = (col[:, None] < cols) & (row[None, :] < rows)
    tl.store(turned + col[:, None] * turned_stride + row[None, :], tl.trans(values), mask=inside)


def turned(matrix: Tensor) -> Tensor:
    """A contiguous copy ``[cols, rows]`` of a matrix ``[rows, cols]`` of one-byte elements with ``stride(1) == 1``."""
    rows, cols = matrix.shape
    copy = torch.empty((cols, rows), dtype=matrix.dtype, device=matrix.device)
    if rows and cols:
        grid = (triton.cdiv(rows, _TILE), triton.cdiv(cols, _TILE))
        with torch.cuda.device_of(matrix):
            source, target = matrix.view(torch.uint8), copy.view(torch.uint8)
            _turn_kernel[grid](source, target, rows, cols, matrix.stride(0), rows, TILE=_TILE, num_warps=8)
    return copy
