"""Norms of block-scaled operands: sums over rows first, then tiles that are normalised and quantized in registers."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.block_norm.rows import (
    COLUMNS,
    ROWS,
    backward_rows_kernel,
    row_values,
    statistics_kernel,
    vector_values,
    weights_of,
)
from planish_kernels.block_quantize.tile import (
    blocks_across,
    chunk_rows,
    chunk_warps,
    is_whole,
    larger,
    largest_code,
    load_draw,
    load_rows,
    load_scales,
    load_tile,
    magnitudes,
    round_rows,
    store_rows,
    store_scales,
    store_tile,
    tile_scale,
    tile_warps,
)


@triton.jit
def _forward_kernel(
    x_codes,
    x_scales,
    statistics,
    weight,
    bias,
    codes,
    scales,
    rows,
    cols,
    scale_columns,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
):
    first_row = tl.program_id(1) * BLOCK
    first_col = tl.program_id(0) * (BLOCK * ACROSS)
    # Codes that wait for the converter hold registers, of which a wide tile with a bias has few.
    FEW: tl.constexpr = HAS_BIAS and BLOCK > 32
    x = load_tile(x_codes, x_scales, first_row, first_col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE, FEW)
    col = first_col + tl.arange(0, BLOCK * ACROSS)
    mean, rstd = row_values(statistics, first_row + tl.arange(0, BLOCK), rows, IS_WHOLE)
    out = (x - mean[:, None]) * rstd[:, None] * weights_of(weight, col, cols, HAS_WEIGHT, IS_WHOLE)[None, :]
    if HAS_BIAS:
        out += vector_values(bias, col, cols, IS_WHOLE)[None, :]
    store_tile(
        out,
        codes,
        scales,
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
    )


@triton.jit
def _gradients(
    grad_codes,
    grad_scale,
    x_codes,
    x_scale,
    statistics,
    means,
    weights,
    first_row,
    first_col,
    rows,
    cols,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    """For some rows of a tile: the gradient of the output, normalised ``x``, and the gradient of ``x``."""
    row = first_row + tl.arange(0, CHUNK)
    grad = load_rows(grad_codes, grad_scale, first_row, first_col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE)
    x = load_rows(x_codes, x_scale, first_row, first_col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE)
    mean, rstd = row_values(statistics, row, rows, IS_WHOLE)
    level, along = row_values(means, row, rows, IS_WHOLE)
    normal = (x - mean[:, None]) * rstd[:, None]
    inner = grad * weights[None, :]
    return grad, normal, rstd[:, None] * (inner - level[:, None] - normal * along[:, None])


@triton.jit
def _backward_kernel(
    grad_codes,
    grad_scales,
    x_codes,
    x_scales,
    statistics,
    means,
    weight,
    codes,
    scales,
    grad_weight,
    grad_bias,
    seed,
    offset,
    rows,
    cols,
    scale_columns,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    """The gradient of ``x``, and one row of partial sums for weight and bias from each row of blocks.

    Two passes over a tile, some rows at a time: the largest magnitudes and the sums, then the codes. What was read is
    read again, from the caches, where it would take the registers that hide waiting.
    """
    first_row = tl.program_id(1) * BLOCK
    first_col = tl.program_id(0) * (BLOCK * ACROSS)
    col = first_col + tl.arange(0, BLOCK * ACROSS)
    weights = weights_of(weight, col, cols, HAS_WEIGHT, IS_WHOLE)
    grad_scale = load_scales(grad_scales, first_row, first_col, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    x_scale = load_scales(x_scales, first_row, first_col, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    most = tl.zeros((CHUNK, BLOCK * ACROSS), tl.float32)
    of_weight = tl.zeros((CHUNK, BLOCK * ACROSS), tl.float32)
    of_bias = tl.zeros((CHUNK, BLOCK * ACROSS), tl.float32)
    for chunk in tl.range(0, BLOCK, CHUNK):
        row = first_row + chunk
        grad, normal, of_x = _gradients(
            grad_codes, grad_scale, x_codes, x_scale, statistics, means, weights, row, first_col, rows, cols,
            CHUNK, BLOCK, ACROSS, IS_WHOLE,
        )  # fmt: skip
        of_weight += grad * normal
        if HAS_BIAS:
            of_bias += grad
        most = larger(most, magnitudes(of_x, row, first_col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE))
    scale = tile_scale(most, CHUNK, BLOCK, ACROSS, LARGEST)
    draw = load_draw(seed, offset, STOCHASTIC)
    for chunk in tl.range(0, BLOCK, CHUNK):
        row = first_row + chunk
        _, _, of_x = _gradients(
            grad_codes, grad_scale, x_codes, x_scale, statistics, means, weights, row, first_col, rows, cols,
            CHUNK, BLOCK, ACROSS, IS_WHOLE,
        )  # fmt: skip
        rounded = round_rows(of_x, scale, draw, row, first_col, rows, CHUNK, BLOCK, ACROSS, IS_INT8, STOCHASTIC)
        store_rows(rounded, codes, row, first_col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE)
    store_scales(scale, scales, first_row, first_col, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    place = tl.program_id(1).to(tl.int64) * cols + col
    tl.store(grad_weight + place, tl.sum(of_weight, 0), mask=col < cols)
    if HAS_BIAS:
        tl.store(grad_bias + place, tl.sum(of_bias, 0), mask=col < cols)


def row_statistics_triton(
    codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float, *, num_warps: int = 4
) -> Tensor:
    """float32 ``[2, rows]``: mean and reciprocal deviation."""
    rows, cols = codes.shape
    statistics = torch.empty((2, rows), dtype=torch.float32, device=codes.device)
    if codes.numel() == 0:
        return statistics
    with torch.cuda.device_of(codes):
        statistics_kernel[(triton.cdiv(rows, ROWS),)](
            codes,
            scales,
            statistics,
            rows,
            cols,
            scales.shape[1],
            eps,
            IS_RMS=is_rms,
            BLOCK=block,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            IS_WHOLE=rows % ROWS == 0 and cols % COLUMNS == 0,
            num_warps=num_warps,
        )
    return statistics


def block_norm_triton(
    x_codes: Tensor,
    x_scales: Tensor,
    block: int,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    across: int | None = None,
    num_warps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes and scales of the norm."""
    rows, cols = x_codes.shape
    codes = torch.empty((rows, cols), dtype=x_codes.dtype, device=x_codes.device)
    scales = torch.empty(x_scales.shape, dtype=torch.float32, device=x_codes.device)
    if codes.numel() == 0:
        return codes, scales
    across = blocks_across(block) if across is None else across
    num_warps = tile_warps(block) if num_warps is None else num_warps
    with torch.cuda.device_of(x_codes):
        _forward_kernel[(triton.cdiv(cols, block * across), triton.cdiv(rows, block))](
            x_codes,
            x_scales,
            statistics,
            statistics if weight is None else weight,
            statistics if bias is None else bias,
            codes,
            scales,
            rows,
            cols,
            scales.shape[1],
            HAS_WEIGHT=weight is not None,
            HAS_BIAS=bias is not None,
            BLOCK=block,
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(x_codes.dtype),
            IS_INT8=x_codes.dtype is torch.int8,
            num_warps=num_warps,
            # Two programs of 16 warps fit a processor. Small blocks without a bias need less, and would take that much.
            maxnreg=64 if bias is not None or block > 32 else None,
        )
    return codes, scales


def block_norm_backward_triton(
    grad_codes: Tensor,
    grad_scales: Tensor,
    x_codes: Tensor,
    x_scales: Tensor,
    block: int,
    statistics: Tensor,
    weight: Tensor | None,
    has_bias: bool,
    is_rms: bool,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    *,
    across: int | None = None,
    num_warps: int | None = None,
    chunk: int | None = None,
    maxnreg: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes and scales of the gradient of ``x``, float32 gradients of weight and bias, if it has one."""
    rows, cols = x_codes.shape
    device = x_codes.device
    codes = torch.empty((rows, cols), dtype=grad_codes.dtype, device=device)
    scales = torch.empty(grad_scales.shape, dtype=torch.float32, device=device)
    if codes.numel() == 0:
        zeros = torch.zeros((cols,), dtype=torch.float32, device=device)
        return codes, scales, zeros, zeros.clone() if has_bias else zeros[:0].clone()
    means = torch.empty((2, rows), dtype=torch.float32, device=device)
    partial = torch.empty((2 if has_bias else 1, scales.shape[0], cols), dtype=torch.float32, device=device)
    if across is None and block == 32:
        # Its sums over rows need no exchange between warps. On an H200 an RMS norm of [8192, 4096] takes 105 us where
        # four blocks to four warps take 129; a LayerNorm 118, and 168.
        across, num_warps = 1, num_warps or 1
    across = blocks_across(block) if across is None else across
    chunk = chunk_rows(block) if chunk is None else chunk
    num_warps = chunk_warps(block, chunk) if num_warps is None else num_warps
    with torch.cuda.device_of(x_codes):
        backward_rows_kernel[(triton.cdiv(rows, ROWS),)](
            grad_codes,
            grad_scales,
            x_codes,
            x_scales,
            statistics,
            statistics if weight is None else weight,
            means,
            rows,
            cols,
            scales.shape[1],
            IS_RMS=is_rms,
            HAS_WEIGHT=weight is not None,
            BLOCK=block,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            IS_WHOLE=rows % ROWS == 0 and cols % COLUMNS == 0,
            num_warps=4,
        )
        _backward_kernel[(triton.cdiv(cols, block * across), triton.cdiv(rows, block))](
            grad_codes,
            grad_scales,
            x_codes,
            x_scales,
            statistics,
            means,
            statistics if weight is None else weight,
            codes,
            scales,
            partial[0],
            partial[-1],
            seed,
            offset,
            rows,
            cols,
            scales.shape[1],
            HAS_WEIGHT=weight is not None,
            HAS_BIAS=has_bias,
            BLOCK=block,
            CHUNK=chunk,
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(grad_codes.dtype),
            IS_INT8=grad_codes.dtype is torch.int8,
            STOCHASTIC=stochastic,
            num_warps=num_warps,
            maxnreg=maxnreg,
        )
    sums = partial.sum(1)
    return codes, scales, sums[0].clone() if has_bias else sums[0], sums[1].clone() if has_bias else sums.new_empty(0)
