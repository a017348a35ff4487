"""Quantization by rows in one launch: a program finds the scales of a few rows and rounds them."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.block_quantize.tile import block_scale, exact_ratio, round_codes
from planish_kernels.philox.triton import tile_noise

MOST_COLUMNS = 8192
"""Columns that a program holds in registers; longer rows are read twice, the second time from the cache."""
_TILE = 4096
"""Entries of a tile of short rows."""


@triton.jit
def _load(dense, row, first_col, rows, cols, stride_row, stride_col, COLS: tl.constexpr):
    col = first_col + tl.arange(0, COLS)[None, :].to(tl.int64)
    inside = (row < rows) & (col < cols)
    return tl.load(dense + row * stride_row + col * stride_col, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _largest(values):
    """The largest magnitude of each row as an integer of the same order, in which NaN is the largest of all."""
    return tl.max(values.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 1)


@triton.jit
def _store(
    values, scale, codes, seed, offset, first_row, first_col, rows, cols,
    ROWS: tl.constexpr, COLS: tl.constexpr, STOCHASTIC: tl.constexpr,
):  # fmt: skip
    """Round a tile whose rows have the scales ``[ROWS]``, and write its codes."""
    ratio = exact_ratio(values, scale[:, None], tl.div_rn(1.0, scale)[:, None])
    noise = ratio
    if STOCHASTIC:
        noise = tile_noise(tl.load(seed), tl.load(offset), first_row, first_col, rows, ROWS, COLS)
    row = first_row.to(tl.int64) + tl.arange(0, ROWS)[:, None]
    col = first_col + tl.arange(0, COLS)[None, :]
    tl.store(codes + row * cols + col, round_codes(ratio, noise, True, STOCHASTIC), mask=(row < rows) & (col < cols))


@triton.jit
def _quantize_kernel(
    dense, codes, scales, seed, offset, rows, cols, stride_row, stride_col,
    ROWS: tl.constexpr, COLS: tl.constexpr, IS_WHOLE: tl.constexpr, STOCHASTIC: tl.constexpr,
):  # fmt: skip
    first_row = tl.program_id(0) * ROWS
    row = first_row.to(tl.int64) + tl.arange(0, ROWS)[:, None]
    start = first_row * 0  # a scalar of the device, as the number of a later column is
    place = first_row + tl.arange(0, ROWS)
    values = _load(dense, row, start, rows, cols, stride_row, stride_col, COLS)
    largest = _largest(values)
    if IS_WHOLE:
        scale = block_scale(largest.to(tl.float32, bitcast=True), 127.0)
        tl.store(scales + place, scale, mask=place < rows)
        _store(values, scale, codes, seed, offset, first_row, start, rows, cols, ROWS, COLS, STOCHASTIC)
    else:
        for first_col in range(COLS, cols, COLS):
            more = _load(dense, row, first_col, rows, cols, stride_row, stride_col, COLS)
            largest = tl.maximum(largest, _largest(more))
        scale = block_scale(largest.to(tl.float32, bitcast=True), 127.0)
        tl.store(scales + place, scale, mask=place < rows)
        for number in range(tl.cdiv(cols, COLS)):
            first_col = start + number * COLS
            more = _load(dense, row, first_col, rows, cols, stride_row, stride_col, COLS)
            _store(more, scale, codes, seed, offset, first_row, first_col, rows, cols, ROWS, COLS, STOCHASTIC)


def row_quantize_triton(
    dense: Tensor, stochastic: bool, seed: Tensor, offset: Tensor, *, most_columns: int = MOST_COLUMNS
) -> tuple[Tensor, Tensor]:
    """Codes and scales of ``dense``; see ``planish_kernels.row_quantize.row_quantize``."""
    rows, cols = dense.shape
    codes = torch.empty((rows, cols), dtype=torch.int8, device=dense.device)
    scales = torch.empty((rows,), dtype=torch.float32, device=dense.device)
    if rows == 0:
        return codes, scales
    block_cols = min(max(triton.next_power_of_2(cols), 16), most_columns)
    block_rows = max(1, min(_TILE // block_cols, 16))
    with torch.cuda.device_of(dense):
        _quantize_kernel[(triton.cdiv(rows, block_rows),)](
            dense,
            codes,
            scales,
            seed,
            offset,
            rows,
            cols,
            *dense.stride(),
            ROWS=block_rows,
            COLS=block_cols,
            IS_WHOLE=cols <= block_cols,
            STOCHASTIC=stochastic,
            num_warps=max(4, min(16, block_rows * block_cols // 1024)),
        )
    return codes, scales
