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
    )


def block_quantize_triton(
    dense: Tensor,
    code_dtype: torch.dtype,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    *,
    across: int | None = None,
    num_warps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes and scales of ``dense``; see ``planish_kernels.block_quantize.block_quantize``."""
    rows, cols = dense.shape
    codes = torch.empty((rows, cols), dtype=code_dtype, device=dense.device)
    scales = torch.empty((-(-rows // block), -(-cols // block)), dtype=torch.float32, device=dense.device)
    if codes.numel() == 0:
        return codes, scales
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
            BLOCK=block,
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(code_dtype),
            IS_INT8=code_dtype is torch.int8,
            STOCHASTIC=stochastic,
            num_warps=num_warps,
        )
    return codes, scales
