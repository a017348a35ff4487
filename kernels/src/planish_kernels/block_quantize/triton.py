"""Block quantization in one pass: a program covers a few blocks, finds their scales and rounds in registers."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.block_quantize.tile import (
    blocks_across,
    is_whole,
    largest_code,
    roomy_warps,
    store_tile,
    tile_warps,
)


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
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    first_row = tl.program_id(1) * BLOCK
    first_col = tl.program_id(0) * (BLOCK * ACROSS)
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK)[:, None]
    col = first_col.to(tl.int64) + tl.arange(0, BLOCK * ACROSS)[None, :]
    place = dense + row * stride_row + col * stride_col
    if IS_WHOLE:
        values = tl.load(place).to(tl.float32)
    else:
        values = tl.load(place, mask=(row < rows) & (col < cols), other=0.0).to(tl.float32)
    store_tile(
        values,
        codes,
        scales,
        seed,
        offset,
        first_row,
        first_col,
        rows,
        cols,
        scale_columns,
        BLOCK,
        ACROSS,
        IS_WHOLE,
        LARGEST,
        IS_INT8,
        STOCHASTIC,
        row_stride,
        scale_stride,
    )


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
) -> None:
    """Write codes and scales of ``dense``; see ``planish_kernels.block_quantize.block_quantize``.

    ``codes`` and ``scales`` have its shape and that of its blocks; they may be parts of wider matrices.
    """
    rows, cols = dense.shape
    if codes.numel() == 0:
        return
    across = blocks_across(block) if across is None else across
    if num_warps is None:
        num_warps = roomy_warps(block) if stochastic else tile_warps(block)
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
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(code_dtype),
            IS_INT8=code_dtype is torch.int8,
            STOCHASTIC=stochastic,
            num_warps=num_warps,
        )
