"""Tiles of scaled blocks inside Triton kernels: one row of blocks, a few side by side, read and written in registers.

A tile is ``[BLOCK, BLOCK * ACROSS]``: rows of at least 128 contiguous bytes, scales in a small vector.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl

from planish_kernels.philox.triton import tile_uniforms

TILE_COLUMNS = 128
"""Least columns of a tile."""


def blocks_across(block: int) -> int:
    """How many blocks side by side make a tile."""
    return max(1, TILE_COLUMNS // block)


def tile_warps(block: int) -> int:
    """Warps of a program that holds a tile: 32 elements a thread, few enough to stay in registers."""
    return max(4, block // 8)


def largest_code(code_dtype: torch.dtype) -> float:
    """The largest code of a dtype."""
    return 127.0 if code_dtype is torch.int8 else 448.0


@triton.jit
def block_scale(largest_magnitude, LARGEST: tl.constexpr):
    """The scale of a block from its largest magnitude; the arithmetic is that of ``reference.block_scales``."""
    quotient = tl.maximum(tl.div_rn(largest_magnitude, LARGEST), 7.52316384526264e-37)
    rounded = ((quotient.to(tl.int32, bitcast=True) + 0x7F) & -128).to(tl.float32, bitcast=True)
    return tl.where(largest_magnitude < float("inf"), rounded, float("nan"))


@triton.jit
def _to_integer(x, uniforms, STOCHASTIC: tl.constexpr):
    """The nearest integer (ties to even), or one of the two neighbours at random; |x| < 2^22."""
    if STOCHASTIC:
        rounded = tl.floor(x + uniforms)
    else:
        rounded = (x + 12582912.0) - 12582912.0  # beyond 1.5 * 2^23 float32 has no fraction left
    return rounded


@triton.jit
def round_codes(ratio, uniforms, IS_INT8: tl.constexpr, STOCHASTIC: tl.constexpr):
    """Codes of ratios: int8, or float32 numbers that float8 e4m3 represents, so that the cast rounds nothing."""
    # One return: Triton compiles what follows a return inside of a branch too, and compares the types.
    if IS_INT8:
        codes = tl.minimum(tl.maximum(_to_integer(ratio, uniforms, STOCHASTIC), -127.0), 127.0).to(tl.int8)
    else:
        bits = tl.maximum(tl.abs(ratio), 0.015625).to(tl.int32, bitcast=True)
        # The power of two below the ratio, over eight: the distance of its neighbours. Dividing by it is exact.
        step = ((bits & 0x7F800000) - (3 << 23)).to(tl.float32, bitcast=True)
        codes = tl.minimum(tl.maximum(_to_integer(ratio / step, uniforms, STOCHASTIC) * step, -448.0), 448.0)
    return codes


@triton.jit
def _spread(scale, BLOCK: tl.constexpr, ACROSS: tl.constexpr):
    """Scales [ACROSS] of blocks side by side, for each entry of their tile.

    Whole rather than one row to be broadcast: the layout that Triton gives the row would hold all rows in each thread,
    and spread to what is computed from it.
    """
    wide = tl.broadcast_to(scale[None, :, None], (BLOCK, ACROSS, BLOCK))
    return tl.reshape(wide, (BLOCK, ACROSS * BLOCK))


@triton.jit
def load_tile(
    codes, scales, first_row, first_col, rows, cols, scale_columns, BLOCK: tl.constexpr, ACROSS: tl.constexpr
):
    """The values of a tile of contiguous codes ``[rows, cols]``, float32; zero outside the matrix."""
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK)[:, None]
    col = first_col.to(tl.int64) + tl.arange(0, BLOCK * ACROSS)[None, :]
    place = first_col // BLOCK + tl.arange(0, ACROSS)
    scale = tl.load(
        scales + (first_row // BLOCK).to(tl.int64) * scale_columns + place, mask=place < scale_columns, other=0.0
    )
    wide = _spread(scale, BLOCK, ACROSS)
    inside = (row < rows) & (col < cols)
    return tl.load(codes + row * cols + col, mask=inside, other=0.0).to(tl.float32) * wide


@triton.jit
def quantized(
    values,
    seed,
    offset,
    first_row,
    first_col,
    rows,
    cols,
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    """Quantize a float32 tile: codes as ``round_codes`` gives them, scales ``[ACROSS]``, and those for each entry."""
    row = first_row + tl.arange(0, BLOCK)[:, None]
    col = first_col + tl.arange(0, BLOCK * ACROSS)[None, :]
    values = tl.where((row < rows) & (col < cols), values, 0.0)
    # A comparison drops NaN: count it as infinite, so that its block shows it.
    magnitude = tl.where(values == values, tl.abs(values), float("inf"))
    largest = tl.max(tl.reshape(tl.max(magnitude, 0), (ACROSS, BLOCK)), 1)
    scale = block_scale(largest, LARGEST)
    wide = _spread(scale, BLOCK, ACROSS)
    ratio = tl.where(wide == wide, tl.div_rn(values, wide), 0.0)
    uniforms = ratio
    if STOCHASTIC:
        uniforms = tile_uniforms(tl.load(seed), tl.load(offset), first_row, first_col, rows, BLOCK, BLOCK * ACROSS)
    return round_codes(ratio, uniforms, IS_INT8, STOCHASTIC), scale, wide


@triton.jit
def store_quantized(
    rounded,
    scale,
    codes,
    scales,
    first_row,
    first_col,
    rows,
    cols,
    scale_columns,
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
):
    """Write what ``quantized`` gave: contiguous codes ``[rows, cols]``, and scales."""
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK)[:, None]
    col = first_col.to(tl.int64) + tl.arange(0, BLOCK * ACROSS)[None, :]
    tl.store(codes + row * cols + col, rounded.to(codes.dtype.element_ty), mask=(row < rows) & (col < cols))
    place = first_col // BLOCK + tl.arange(0, ACROSS)
    tl.store(scales + (first_row // BLOCK).to(tl.int64) * scale_columns + place, scale, mask=place < scale_columns)


@triton.jit
def store_tile(
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
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    """Quantize a float32 tile and write its codes and scales."""
    rounded, scale, _ = quantized(
        values, seed, offset, first_row, first_col, rows, cols, BLOCK, ACROSS, LARGEST, IS_INT8, STOCHASTIC
    )
    store_quantized(rounded, scale, codes, scales, first_row, first_col, rows, cols, scale_columns, BLOCK, ACROSS)
