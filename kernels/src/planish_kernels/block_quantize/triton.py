"""Block quantization in one pass: a program covers a few blocks, finds their scales and rounds in registers."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.block_quantize.tile import (
    blocks_across,
    chunk_rows,
    chunk_warps,
    is_whole,
    larger,
    largest_code,
    load_draw,
    round_rows,
    store_rows,
    store_scales,
    tile_scale,
    wide,
)
from planish_kernels.philox.triton import IS_COMPILED


@triton.jit
def _load_dense(
    dense,
    first_row,
    first_col,
    rows,
    cols,
    stride_row,
    stride_col,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    row = first_row.to(tl.int64) + tl.arange(0, ROWS)[:, None]
    col = first_col.to(tl.int64) + tl.arange(0, COLUMNS)[None, :]
    place = dense + row * stride_row + col * stride_col
    if IS_WHOLE:
        values = tl.load(place)
    else:
        values = tl.load(place, mask=(row < rows) & (col < cols), other=0.0)
    return values


@triton.jit
def _larger_in_pairs(most, values):
    """The larger of magnitudes in bfloat16 and those of ``values``; NaN if one is."""
    pair: tl.constexpr = "{ .reg .b32 magnitudes; abs.bf16x2 magnitudes, $2; max.NaN.bf16x2 $0, $1, magnitudes; }"
    return tl.inline_asm_elementwise(pair, "=r,r,r", [most, values], tl.bfloat16, True, 2)


@triton.jit
def _quantize_kernel(
    dense,
    codes,
    scales,
    seed,
    offset,
    rows,
    cols,
    stride_row,
    stride_col,
    scale_columns,
    row_stride,
    scale_stride,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    """Two passes over a tile, some rows at a time: the largest magnitudes, then the codes.

    What was read is read again, from the caches, where it would take the registers that hide waiting.
    """
    first_row = tl.program_id(1) * BLOCK
    first_col = tl.program_id(0) * (BLOCK * ACROSS)
    # A GPU compares two of bfloat16 at once; what is read only once is wanted as float32 too.
    IN_PAIRS: tl.constexpr = IS_COMPILED and CHUNK < BLOCK and dense.dtype.element_ty == tl.bfloat16
    most = tl.zeros((CHUNK, BLOCK * ACROSS), tl.bfloat16 if IN_PAIRS else tl.float32)
    for chunk in tl.range(0, BLOCK, CHUNK):
        row = first_row + chunk
        values = _load_dense(dense, row, first_col, rows, cols, stride_row, stride_col, CHUNK, BLOCK * ACROSS, IS_WHOLE)
        most = _larger_in_pairs(most, values) if IN_PAIRS else larger(most, tl.abs(wide(values)))
    scale = tile_scale(wide(most), CHUNK, BLOCK, ACROSS, LARGEST)
    draw = load_draw(seed, offset, STOCHASTIC)
    for chunk in tl.range(0, BLOCK, CHUNK):
        row = first_row + chunk
        values = _load_dense(dense, row, first_col, rows, cols, stride_row, stride_col, CHUNK, BLOCK * ACROSS, IS_WHOLE)
        rounded = round_rows(wide(values), scale, draw, row, first_col, rows, CHUNK, BLOCK, ACROSS, IS_INT8, STOCHASTIC)
        store_rows(rounded, codes, row, first_col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE, row_stride)
    store_scales(scale, scales, first_row, first_col, scale_columns, BLOCK, ACROSS, IS_WHOLE, scale_stride)


def block_quantize_triton(
    dense: Tensor,
    code_dtype: torch.dtype,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    codes: Tensor,
    scales: Tensor,
    *,
    across: int | None = None,
    num_warps: int | None = None,
    chunk: int | None = None,
    maxnreg: int | None = None,
) -> None:
    """Write codes and scales of ``dense``; see ``planish_kernels.block_quantize.block_quantize``.

    ``codes`` and ``scales`` have its shape and that of its blocks; they may be parts of wider matrices.
    """
    rows, cols = dense.shape
    if codes.numel() == 0:
        return
    across = blocks_across(block) if across is None else across
    if chunk is None and not stochastic and block == 128:
        # Little to keep, and a load to wait for: 29 us for [8192, 4096] on an H200 in place of 35.
        chunk, num_warps = 64, num_warps or 16
    chunk = chunk_rows(block) if chunk is None else chunk
    num_warps = chunk_warps(block, chunk) if num_warps is None else num_warps
    with torch.cuda.device_of(dense):
        _quantize_kernel[(triton.cdiv(cols, block * across), triton.cdiv(rows, block))](
            dense,
            codes,
            scales,
            seed,
            offset,
            rows,
            cols,
            *dense.stride(),
            scales.shape[1],
            codes.stride(0),
            scales.stride(0),
            BLOCK=block,
            CHUNK=chunk,
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(code_dtype),
            IS_INT8=code_dtype is torch.int8,
            STOCHASTIC=stochastic,
            num_warps=num_warps,
            maxnreg=maxnreg,
        )
