"""Block-scaled matmul: products of int8 or float8 codes, one inner block at a time, scaled and summed in float32."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.block_quantize.tile import block_scale, exact_ratio, largest_code, round_codes
from planish_kernels.philox.triton import tile_noise


@triton.jit
def _product_tile(
    a_codes,
    a_scales,
    b_codes,
    b_scales,
    m,
    n,
    inner,
    a_stride_row,
    a_stride_col,
    a_scale_stride_row,
    a_scale_stride_col,
    b_stride_row,
    b_stride_col,
    b_scale_stride_row,
    b_scale_stride_col,
    row,
    col,
    BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_INT8: tl.constexpr,
):
    """The float32 tile ``[BLOCK_M, BLOCK_N]`` of ``a @ b`` at ``row`` [BLOCK_M] and ``col`` [BLOCK_N]."""
    k = tl.arange(0, BLOCK)
    a = a_codes + row[:, None] * a_stride_row + k[None, :] * a_stride_col
    b = b_codes + k[:, None] * b_stride_row + col[None, :] * b_stride_col
    a_scale = a_scales + (row // BLOCK) * a_scale_stride_row
    b_scale = b_scales + (col // BLOCK) * b_scale_stride_col
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, inner, BLOCK):
        in_block = k + start < inner
        left = tl.load(a, mask=(row[:, None] < m) & in_block[None, :], other=0.0)
        right = tl.load(b, mask=in_block[:, None] & (col[None, :] < n), other=0.0)
        if IS_INT8:
            product = tl.dot(left, right, out_dtype=tl.int32).to(tl.float32)
        else:
            product = tl.dot(left, right, out_dtype=tl.float32)
        rows = tl.load(a_scale, mask=row < m, other=0.0)
        cols = tl.load(b_scale, mask=col < n, other=0.0)
        total += product * (rows[:, None] * cols[None, :])
        a += BLOCK * a_stride_col
        b += BLOCK * b_stride_row
        a_scale += a_scale_stride_col
        b_scale += b_scale_stride_row
    return total


@triton.jit
def _tile_place(m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Number of this program's tile along m and n: groups of ``GROUP_M`` rows of tiles share columns in the L2."""
    program = tl.program_id(0)
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    in_group = GROUP_M * tiles_n
    first = (program // in_group) * GROUP_M
    height = min(tiles_m - first, GROUP_M)
    return first + (program % in_group) % height, (program % in_group) // height


@triton.jit
def _spread(scale, BLOCK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """One number of each block of a tile, for each of its entries."""
    wide = tl.broadcast_to(scale[:, None, :, None], (BLOCK_M // BLOCK, BLOCK, BLOCK_N // BLOCK, BLOCK))
    return tl.reshape(wide, (BLOCK_M, BLOCK_N))


@triton.jit
def _matmul_kernel(
    a_codes,
    a_scales,
    b_codes,
    b_scales,
    bias,
    out,
    out_scales,
    seed,
    offset,
    m,
    n,
    inner,
    a_stride_row,
    a_stride_col,
    a_scale_stride_row,
    a_scale_stride_col,
    b_stride_row,
    b_stride_col,
    b_scale_stride_row,
    b_scale_stride_col,
    out_stride_row,
    out_scale_columns,
    BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP_M: tl.constexpr,
    IS_INT8: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    QUANTIZES: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    LARGEST: tl.constexpr,
):
    tile_m, tile_n = _tile_place(m, n, BLOCK_M, BLOCK_N, GROUP_M)
    first_row, first_col = tile_m * BLOCK_M, tile_n * BLOCK_N
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK_M)
    col = first_col.to(tl.int64) + tl.arange(0, BLOCK_N)
    total = _product_tile(
        a_codes,
        a_scales,
        b_codes,
        b_scales,
        m,
        n,
        inner,
        a_stride_row,
        a_stride_col,
        a_scale_stride_row,
        a_scale_stride_col,
        b_stride_row,
        b_stride_col,
        b_scale_stride_row,
        b_scale_stride_col,
        row,
        col,
        BLOCK,
        BLOCK_M,
        BLOCK_N,
        IS_INT8,
    )
    if HAS_BIAS:
        total += tl.load(bias + col, mask=col < n, other=0.0).to(tl.float32)[None, :]
    inside = (row[:, None] < m) & (col[None, :] < n)
    place = out + row[:, None] * out_stride_row + col[None, :]
    if QUANTIZES:
        # What lies outside the matrix is zero but for the bias: it must not widen a block's scale.
        total = tl.where(inside, total, 0.0)
        magnitude = total.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        blocks = tl.reshape(magnitude, (BLOCK_M // BLOCK, BLOCK, BLOCK_N // BLOCK, BLOCK))
        scale = block_scale(tl.max(tl.max(blocks, 3), 1).to(tl.float32, bitcast=True), LARGEST)
        inverse = tl.div_rn(1.0, scale)
        ratio = exact_ratio(
            total,
            _spread(scale, BLOCK, BLOCK_M, BLOCK_N),
            _spread(inverse, BLOCK, BLOCK_M, BLOCK_N),
        )
        noise = ratio
        if STOCHASTIC:
            noise = tile_noise(tl.load(seed), tl.load(offset), first_row, first_col, m, BLOCK_M, BLOCK_N, not IS_INT8)
        rounded = round_codes(ratio, noise, IS_INT8, STOCHASTIC)
        tl.store(place, rounded, mask=inside)
        block_row = tile_m * (BLOCK_M // BLOCK) + tl.arange(0, BLOCK_M // BLOCK)
        block_col = tile_n * (BLOCK_N // BLOCK) + tl.arange(0, BLOCK_N // BLOCK)
        there = (block_row[:, None] < tl.cdiv(m, BLOCK)) & (block_col[None, :] < out_scale_columns)
        tl.store(out_scales + block_row[:, None] * out_scale_columns + block_col[None, :], scale, mask=there)
    else:
        tl.store(place, total.to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class Tile:
    """How a launch is cut up: sides of the output tile (multiples of the block), warps, stages of the pipeline."""

    rows: int
    cols: int
    warps: int
    stages: int


def default_tile(block: int, m: int, n: int) -> Tile:
    """The tile for a block side; small outputs get smaller ones, so that more programs share the work."""
    if block == 128:
        return Tile(128, 128, 8, 4)
    if m <= 64 or n <= 64:
        return Tile(max(block, 32), max(block, 32), 4, 3)
    return Tile(128, 64, 4, 6) if block == 64 else Tile(128, 128, 8, 4)


def block_matmul_triton(
    a_codes: Tensor,
    a_scales: Tensor,
    b_codes: Tensor,
    b_scales: Tensor,
    block: int,
    bias: Tensor | None,
    out: Tensor,
    out_scales: Tensor | None,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    tile: Tile | None = None,
) -> None:
    """Write ``a @ b + bias`` to ``out`` [m, n], row-major; with ``out_scales`` as codes and scales.

    Codes and scales of either operand have any strides: a transposed operand is a view.
    """
    (m, inner), n = a_codes.shape, b_codes.shape[1]
    if m == 0 or n == 0:
        return
    tile = default_tile(block, m, n) if tile is None else tile
    grid = (triton.cdiv(m, tile.rows) * triton.cdiv(n, tile.cols),)
    with torch.cuda.device_of(a_codes):
        _matmul_kernel[grid](
            a_codes,
            a_scales,
            b_codes,
            b_scales,
            out if bias is None else bias,
            out,
            out if out_scales is None else out_scales,
            seed,
            offset,
            m,
            n,
            inner,
            *a_codes.stride(),
            *a_scales.stride(),
            *b_codes.stride(),
            *b_scales.stride(),
            out.stride(0),
            0 if out_scales is None else out_scales.shape[1],
            BLOCK=block,
            BLOCK_M=tile.rows,
            BLOCK_N=tile.cols,
            GROUP_M=8,
            IS_INT8=a_codes.dtype is torch.int8,
            HAS_BIAS=bias is not None,
            QUANTIZES=out_scales is not None,
            STOCHASTIC=stochastic,
            LARGEST=largest_code(a_codes.dtype),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
