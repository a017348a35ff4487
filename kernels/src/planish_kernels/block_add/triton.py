"""Residual sums: one pass that adds, quantizes, and keeps a mean and a spread of each row of each tile."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.block_quantize.tile import (
    blocks_across,
    code_values,
    is_whole,
    largest_code,
    load_tile,
    quantized,
    store_quantized,
    tile_places,
    tile_warps,
    wide,
)
from planish_kernels.philox.triton import IS_COMPILED

_ROUND_TWO = tl.constexpr(
    "{ .reg .b32 pair; cvt.rn.bf16x2.f32 pair, $4, $3; mov.b32 $0, pair; "
    "shl.b32 $1, pair, 16; and.b32 $2, pair, 0xFFFF0000; }"
)


@triton.jit
def _as_kept(values, DTYPE: tl.constexpr):
    """float32 values in the dtype of a sum, and what that keeps of them as float32."""
    if tl.bfloat16 == DTYPE and IS_COMPILED:
        # Two by one instruction. Triton converts one at a time, of which a GPU does an eighth as many a clock.
        rounded, kept = tl.inline_asm_elementwise(
            _ROUND_TWO, "=r,=r,=r,r,r", [values], (tl.bfloat16, tl.float32), True, 2
        )
    else:
        rounded = values.to(DTYPE)
        kept = rounded.to(tl.float32)
    return rounded, kept


@triton.jit
def _add_kernel(
    residual,
    branch_codes,
    branch_scales,
    total,
    codes,
    scales,
    tile_means,
    tile_squares,
    seed,
    offset,
    rows,
    cols,
    residual_stride_row,
    residual_stride_col,
    scale_columns,
    IS_RMS: tl.constexpr,
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
    place, inside = tile_places(first_row, first_col, rows, cols, BLOCK, BLOCK * ACROSS)
    branch = load_tile(
        branch_codes, branch_scales, first_row, first_col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE
    )
    source = residual + row * residual_stride_row + col * residual_stride_col
    if IS_WHOLE:
        before = tl.load(source)
    else:
        before = tl.load(source, mask=inside, other=0.0)
    summed, kept = _as_kept(wide(before) + branch, total.dtype.element_ty)
    if IS_WHOLE:
        tl.store(total + place, summed)
    else:
        tl.store(total + place, summed, mask=inside)
    rounded, scale = quantized(
        kept, seed, offset, first_row, first_col, rows, cols,
        BLOCK, ACROSS, IS_WHOLE, LARGEST, IS_INT8, STOCHASTIC,
    )  # fmt: skip
    store_quantized(
        rounded, scale, codes, scales, first_row, first_col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE
    )
    # Statistics are those of what the norm will read: of the codes of each block, then of the tile. A tile times its
    # scales would be laid out with all rows in each thread.
    # One block is a tile by itself: nothing has to be reshaped, and its scale is a scalar.
    code = code_values(rounded)
    if not IS_WHOLE:
        code = tl.where(inside, code, 0.0)
    count = tl.minimum(cols - first_col, BLOCK * ACROSS).to(tl.float32)
    if ACROSS > 1:
        code = tl.reshape(code, (BLOCK, ACROSS, BLOCK))
        there = tl.reshape(inside, (BLOCK, ACROSS, BLOCK))
        width = tl.minimum(tl.maximum(cols - first_col - tl.arange(0, ACROSS) * BLOCK, 0), BLOCK).to(tl.float32)
        level = tl.sum(code, 2) / tl.maximum(width, 1.0)[None, :]
        if IS_RMS:
            level = level * 0.0
        away = tl.where(there, code - level[:, :, None], 0.0)
        squares = tl.sum(away * away, 2) * (scale * scale)[None, :]
        level = level * scale[None, :]
        mean = tl.sum(level * width[None, :], 1) / count
        between = level - mean[:, None]
        squares = tl.sum(squares + width[None, :] * between * between, 1)
    else:
        level = tl.sum(code, 1) / count
        if IS_RMS:
            level = level * 0.0
        away = code - level[:, None]
        if not IS_WHOLE:
            away = tl.where(inside, away, 0.0)
        squares = tl.sum(away * away, 1) * (scale * scale)
        mean = level * scale
    at = tl.program_id(0).to(tl.int64) * rows + first_row + tl.arange(0, BLOCK)
    within = first_row + tl.arange(0, BLOCK) < rows
    tl.store(tile_means + at, mean, mask=within)
    tl.store(tile_squares + at, squares, mask=within)


@triton.jit
def _combine_kernel(
    tile_means,
    tile_squares,
    statistics,
    rows,
    cols,
    tiles,
    eps,
    IS_RMS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
):
    """Mean and spread of each row from those of its tiles: the spread within tiles, and that of their means."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mean = tl.zeros((ROWS,), dtype=tl.float32)
    if not IS_RMS:
        for first in range(0, tiles, TILES):
            tile = first + tl.arange(0, TILES)
            there = (tile[:, None] < tiles) & (row[None, :] < rows)
            count = tl.minimum(cols - tile * WIDTH, WIDTH).to(tl.float32)
            means = tl.load(tile_means + tile[:, None].to(tl.int64) * rows + row[None, :], mask=there, other=0.0)
            mean += tl.sum(count[:, None] * means, 0)
        mean = mean / cols
    squares = tl.zeros((ROWS,), dtype=tl.float32)
    for first in range(0, tiles, TILES):
        tile = first + tl.arange(0, TILES)
        there = (tile[:, None] < tiles) & (row[None, :] < rows)
        place = tile[:, None].to(tl.int64) * rows + row[None, :]
        count = tl.minimum(cols - tile * WIDTH, WIDTH).to(tl.float32)
        away = tl.load(tile_means + place, mask=there, other=0.0) - mean[None, :]
        within = tl.load(tile_squares + place, mask=there, other=0.0)
        squares += tl.sum(tl.where(there, within + count[:, None] * away * away, 0.0), 0)
    tl.store(statistics + row, mean, mask=row < rows)
    tl.store(statistics + rows + row, 1.0 / tl.sqrt_rn(squares / cols + eps), mask=row < rows)


def block_add_triton(
    residual: Tensor,
    branch_codes: Tensor,
    branch_scales: Tensor,
    block: int,
    is_rms: bool,
    eps: float,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    *,
    across: int | None = None,
    num_warps: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum, its codes and scales, and the statistics of the latter."""
    rows, cols = branch_codes.shape
    device = branch_codes.device
    total = torch.empty((rows, cols), dtype=residual.dtype, device=device)
    codes = torch.empty((rows, cols), dtype=branch_codes.dtype, device=device)
    scales = torch.empty(branch_scales.shape, dtype=torch.float32, device=device)
    statistics = torch.empty((2, rows), dtype=torch.float32, device=device)
    if codes.numel() == 0:
        return total, codes, scales, statistics
    across = blocks_across(block) if across is None else across
    num_warps = tile_warps(block) if num_warps is None else num_warps
    tiles = triton.cdiv(cols, block * across)
    tile_means = torch.empty((tiles, rows), dtype=torch.float32, device=device)
    tile_squares = torch.empty((tiles, rows), dtype=torch.float32, device=device)
    with torch.cuda.device_of(branch_codes):
        _add_kernel[(tiles, triton.cdiv(rows, block))](
            residual,
            branch_codes,
            branch_scales,
            total,
            codes,
            scales,
            tile_means,
            tile_squares,
            seed,
            offset,
            rows,
            cols,
            *residual.stride(),
            scales.shape[1],
            IS_RMS=is_rms,
            BLOCK=block,
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(codes.dtype),
            IS_INT8=codes.dtype is torch.int8,
            STOCHASTIC=stochastic,
            num_warps=num_warps,
            maxnreg=64,  # two programs of 16 warps fit a processor
        )
        _combine_kernel[(triton.cdiv(rows, 32),)](
            tile_means,
            tile_squares,
            statistics,
            rows,
            cols,
            tiles,
            eps,
            IS_RMS=is_rms,
            WIDTH=block * across,
            ROWS=32,
            TILES=32,
            num_warps=4,
        )
    return total, codes, scales, statistics
