"""Block quantization in one pass: a program covers a few blocks, finds their scales and rounds in registers."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.philox.triton import tile_uniforms


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
        return tl.floor(x + uniforms)
    return (x + 12582912.0) - 12582912.0  # beyond 1.5 * 2^23 float32 has no fraction left


@triton.jit
def round_codes(ratio, uniforms, IS_INT8: tl.constexpr, STOCHASTIC: tl.constexpr):
    """Codes of ratios: int8, or float32 numbers that float8 e4m3 represents, so that the cast rounds nothing."""
    if IS_INT8:
        return tl.minimum(tl.maximum(_to_integer(ratio, uniforms, STOCHASTIC), -127.0), 127.0).to(tl.int8)
    bits = tl.maximum(tl.abs(ratio), 0.015625).to(tl.int32, bitcast=True)
    # The power of two below the ratio, over eight: the distance of its neighbours. Dividing by it is exact.
    step = ((bits & 0x7F800000) - (3 << 23)).to(tl.float32, bitcast=True)
    return tl.minimum(tl.maximum(_to_integer(ratio / step, uniforms, STOCHASTIC) * step, -448.0), 448.0)


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
    codes_stride_row,
    scale_columns,
    BLOCK: tl.constexpr,
    BLOCKS_ACROSS: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    """A program covers one row of blocks, ``BLOCKS_ACROSS`` of them side by side."""
    first_row = tl.program_id(1) * BLOCK
    first_col = tl.program_id(0) * (BLOCK * BLOCKS_ACROSS)
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK)[:, None]
    col = first_col.to(tl.int64) + tl.arange(0, BLOCK * BLOCKS_ACROSS)[None, :]
    inside = (row < rows) & (col < cols)
    values = tl.load(dense + row * stride_row + col * stride_col, mask=inside, other=0.0).to(tl.float32)
    # A comparison drops NaN: count it as infinite, so that its block shows it.
    magnitude = tl.where(values == values, tl.abs(values), float("inf"))
    by_column = tl.max(magnitude, 0)
    largest = tl.max(tl.reshape(by_column, (BLOCKS_ACROSS, BLOCK)), 1)
    scale = block_scale(largest, LARGEST)
    wide = tl.reshape(tl.broadcast_to(scale[:, None], (BLOCKS_ACROSS, BLOCK)), (1, BLOCK * BLOCKS_ACROSS))
    ratio = tl.where(wide == wide, tl.div_rn(values, tl.broadcast_to(wide, values.shape)), 0.0)
    uniforms = ratio
    if STOCHASTIC:
        uniforms = tile_uniforms(
            tl.load(seed), tl.load(offset), first_row, first_col, rows, BLOCK, BLOCK * BLOCKS_ACROSS
        )
    rounded = round_codes(ratio, uniforms, IS_INT8, STOCHASTIC)
    tl.store(codes + row * codes_stride_row + col, rounded.to(codes.dtype.element_ty), mask=inside)
    place = tl.program_id(0) * BLOCKS_ACROSS + tl.arange(0, BLOCKS_ACROSS)
    tl.store(scales + tl.program_id(1).to(tl.int64) * scale_columns + place, scale, mask=place < scale_columns)


def block_quantize_triton(
    dense: Tensor,
    code_dtype: torch.dtype,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    *,
    blocks_across: int | None = None,
    num_warps: int = 4,
) -> tuple[Tensor, Tensor]:
    """Codes and scales of ``dense``; see ``planish_kernels.block_quantize.block_quantize``."""
    rows, cols = dense.shape
    codes = torch.empty((rows, cols), dtype=code_dtype, device=dense.device)
    scales = torch.empty((-(-rows // block), -(-cols // block)), dtype=torch.float32, device=dense.device)
    if codes.numel() == 0:
        return codes, scales
    # Rows of at least 128 contiguous bytes, tiles of at most 16 Ki elements.
    across = max(1, 128 // block) if blocks_across is None else blocks_across
    grid = (triton.cdiv(cols, block * across), triton.cdiv(rows, block))
    with torch.cuda.device_of(dense):
        _quantize_kernel[grid](
            dense,
            codes,
            scales,
            seed,
            offset,
            rows,
            cols,
            *dense.stride(),
            codes.stride(0),
            scales.shape[1],
            BLOCK=block,
            BLOCKS_ACROSS=across,
            LARGEST=127.0 if code_dtype is torch.int8 else 448.0,
            IS_INT8=code_dtype is torch.int8,
            STOCHASTIC=stochastic,
            num_warps=num_warps,
        )
    return codes, scales
