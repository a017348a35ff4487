"""Dropout of block-scaled operands in one pass: the mask is drawn in registers and never written."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.block_dropout.reference import DRAWS, STREAM
from planish_kernels.block_quantize.tile import blocks_across, tile_warps
from planish_kernels.philox.triton import tile_uniforms


@triton.jit
def _dropout_kernel(
    in_codes,
    in_scales,
    codes,
    scales,
    seed,
    offset,
    dropped,
    kept,
    rows,
    cols,
    scale_columns,
    STREAM: tl.constexpr,
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
):
    """``dropped`` and ``kept`` are shares of all draws, exact in float32; codes are bytes, zero in either dtype."""
    first_row = tl.program_id(1) * BLOCK
    first_col = tl.program_id(0) * (BLOCK * ACROSS)
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK)[:, None]
    col = first_col.to(tl.int64) + tl.arange(0, BLOCK * ACROSS)[None, :]
    inside = (row < rows) & (col < cols)
    value = tl.load(in_codes + row * cols + col, mask=inside, other=0)
    uniforms = tile_uniforms(tl.load(seed) ^ STREAM, tl.load(offset), first_row, first_col, rows, BLOCK, BLOCK * ACROSS)
    tl.store(codes + row * cols + col, tl.where(uniforms >= dropped, value, 0), mask=inside)
    within = first_col // BLOCK + tl.arange(0, ACROSS)
    place = (first_row // BLOCK).to(tl.int64) * scale_columns + within
    quotient = tl.div_rn(tl.load(in_scales + place, mask=within < scale_columns, other=1.0), kept)
    bits = quotient.to(tl.int32, bitcast=True)
    rounded = ((bits + 0x3F + ((bits >> 7) & 1)) & -128).to(tl.float32, bitcast=True)
    tl.store(scales + place, tl.where(rounded < float("inf"), rounded, float("nan")), mask=within < scale_columns)


def block_dropout_triton(
    in_codes: Tensor,
    in_scales: Tensor,
    block: int,
    dropped: int,
    seed: Tensor,
    offset: Tensor,
    *,
    across: int | None = None,
    num_warps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes and scales; ``dropped`` of all draws drop an element."""
    rows, cols = in_codes.shape
    codes = torch.empty((rows, cols), dtype=in_codes.dtype, device=in_codes.device)
    scales = torch.empty(in_scales.shape, dtype=torch.float32, device=in_codes.device)
    if codes.numel() == 0:
        return codes, scales
    across = blocks_across(block) if across is None else across
    num_warps = tile_warps(block) if num_warps is None else num_warps
    with torch.cuda.device_of(in_codes):
        _dropout_kernel[(triton.cdiv(cols, block * across), triton.cdiv(rows, block))](
            in_codes.view(torch.int8),
            in_scales,
            codes.view(torch.int8),
            scales,
            seed,
            offset,
            dropped / DRAWS,
            1 - dropped / DRAWS,
            rows,
            cols,
            scales.shape[1],
            STREAM=STREAM,
            BLOCK=block,
            ACROSS=across,
            num_warps=num_warps,
        )
    return codes, scales
