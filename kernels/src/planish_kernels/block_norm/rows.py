"""Sums over the rows of block-scaled operands that norms need: those of the rows' statistics, and of their gradients.

A program sums sixteen neighbours at a time, and what it has of a row at its end: its threads wait for nothing else.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from planish_kernels.block_quantize.tile import code_values

ROWS = 8
"""Rows of a program that sums over rows: few, so that a short batch fills a GPU; they lie in one row of blocks."""
COLUMNS = 512


@triton.jit
def vector_values(source, place, end, IS_WHOLE: tl.constexpr):
    """float32 entries of a vector; zero beyond its end."""
    if IS_WHOLE:
        values = tl.load(source + place)
    else:
        values = tl.load(source + place, mask=place < end, other=0.0)
    return values.to(tl.float32)


@triton.jit
def weights_of(weight, col, cols, HAS_WEIGHT: tl.constexpr, IS_WHOLE: tl.constexpr):
    """The weights of columns; ones if there are none."""
    if HAS_WEIGHT:
        weights = vector_values(weight, col, cols, IS_WHOLE)
    else:
        weights = tl.full(col.shape, 1.0, tl.float32)
    return weights


@triton.jit
def row_values(statistics, row, rows, IS_WHOLE: tl.constexpr):
    """Both numbers of rows, of ``[2, rows]``."""
    return vector_values(statistics, row, rows, IS_WHOLE), vector_values(statistics + rows, row, rows, IS_WHOLE)


@triton.jit
def _columns(first_col, COLUMNS: tl.constexpr):
    """Columns ``[1, COLUMNS // 16, 16]``."""
    return first_col + tl.arange(0, COLUMNS // 16)[None, :, None] * 16 + tl.arange(0, 16)[None, None, :]


@triton.jit
def _load_rows(
    codes, scales, row, first_col, rows, cols, scale_columns,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, IS_WHOLE: tl.constexpr,
):  # fmt: skip
    """Values ``[ROWS, COLUMNS // 16, 16]`` of rows that share a row of blocks, float32, and which of them exist.

    Sixteen neighbours are what a thread loads at once: they have one scale, and a sum without exchange.
    """
    group = first_col + tl.arange(0, COLUMNS // 16) * 16
    col = _columns(first_col, COLUMNS)
    scale_row = (tl.min(row, 0) // BLOCK).to(tl.int64) * scale_columns
    inside = (row[:, None, None] < rows) & (col < cols)
    place = row[:, None, None].to(tl.int64) * cols + col
    if IS_WHOLE:
        scale = tl.load(scales + scale_row + group // BLOCK)
        code = tl.load(codes + place)
    else:
        scale = tl.load(scales + scale_row + group // BLOCK, mask=group < cols, other=0.0)
        code = tl.load(codes + place, mask=inside, other=0.0)
    return code_values(code, True) * scale[None, :, None], inside


@triton.jit
def statistics_kernel(
    codes,
    scales,
    statistics,
    rows,
    cols,
    scale_columns,
    eps,
    IS_RMS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    """``statistics`` [2, rows]: mean and reciprocal deviation of each row."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mean = tl.zeros((ROWS,), dtype=tl.float32)
    if not IS_RMS:
        total = tl.zeros((ROWS, COLUMNS // 16), dtype=tl.float32)
        for first_col in range(0, cols, COLUMNS):
            x, _ = _load_rows(codes, scales, row, first_col, rows, cols, scale_columns, BLOCK, COLUMNS, IS_WHOLE)
            total += tl.sum(x, 2)
        mean = tl.sum(total, 1) / cols
    squares = tl.zeros((ROWS, COLUMNS // 16), dtype=tl.float32)
    for first_col in range(0, cols, COLUMNS):
        x, inside = _load_rows(codes, scales, row, first_col, rows, cols, scale_columns, BLOCK, COLUMNS, IS_WHOLE)
        away = x - mean[:, None, None]
        if not IS_WHOLE:
            away = tl.where(inside, away, 0.0)
        squares += tl.sum(away * away, 2)
    tl.store(statistics + row, mean, mask=row < rows)
    tl.store(statistics + rows + row, 1.0 / tl.sqrt_rn(tl.sum(squares, 1) / cols + eps), mask=row < rows)


@triton.jit
def backward_rows_kernel(
    grad_codes,
    grad_scales,
    x_codes,
    x_scales,
    statistics,
    weight,
    means,
    rows,
    cols,
    scale_columns,
    IS_RMS: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    """``means`` [2, rows]: the means over a row of ``weight * grad`` and of ``weight * grad * normalised x``."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mean, rstd = row_values(statistics, row, rows, IS_WHOLE)
    level = tl.zeros((ROWS, COLUMNS // 16), dtype=tl.float32)
    along = tl.zeros((ROWS, COLUMNS // 16), dtype=tl.float32)
    for first_col in range(0, cols, COLUMNS):
        grad, inside = _load_rows(
            grad_codes, grad_scales, row, first_col, rows, cols, scale_columns, BLOCK, COLUMNS, IS_WHOLE
        )
        x, _ = _load_rows(x_codes, x_scales, row, first_col, rows, cols, scale_columns, BLOCK, COLUMNS, IS_WHOLE)
        # Loaded for each row: one row of weights would go to those who need it by way of shared memory, at a barrier.
        col = tl.broadcast_to(_columns(first_col, COLUMNS), grad.shape)
        inner = grad * weights_of(weight, col, cols, HAS_WEIGHT, IS_WHOLE)
        product = inner * ((x - mean[:, None, None]) * rstd[:, None, None])
        if not IS_WHOLE:
            product = tl.where(inside, product, 0.0)
        if not IS_RMS:
            level += tl.sum(inner, 2)
        along += tl.sum(product, 2)
    tl.store(means + row, tl.sum(level, 1) / cols, mask=row < rows)
    tl.store(means + rows + row, tl.sum(along, 1) / cols, mask=row < rows)
