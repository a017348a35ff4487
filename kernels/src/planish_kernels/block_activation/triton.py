"""Activations of block-scaled operands: a tile is decoded, computed and quantized in registers."""

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
    load_tile,
    roomy_warps,
    store_tile,
    tile_warps,
)
from planish_kernels.gated_activation.curve import activation_and_slope


@triton.jit
def _forward_kernel(
    x_codes,
    x_scales,
    up_codes,
    up_scales,
    codes,
    scales,
    rows,
    cols,
    scale_columns,
    ACTIVATION: tl.constexpr,
    IS_GATED: tl.constexpr,
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
):
    row = tl.program_id(1) * BLOCK
    col = tl.program_id(0) * (BLOCK * ACROSS)
    x = load_tile(x_codes, x_scales, row, col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    value, _ = activation_and_slope(x, ACTIVATION, True)
    if IS_GATED:
        value *= load_tile(up_codes, up_scales, row, col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    store_tile(
        value,
        codes,
        scales,
        codes,
        codes,
        row,
        col,
        rows,
        cols,
        scale_columns,
        BLOCK,
        ACROSS,
        IS_WHOLE,
        LARGEST,
        IS_INT8,
        False,
    )


@triton.jit
def _backward_kernel(
    grad_codes,
    grad_scales,
    x_codes,
    x_scales,
    up_codes,
    up_scales,
    grad_x_codes,
    grad_x_scales,
    grad_up_codes,
    grad_up_scales,
    seed,
    offset,
    next_offset,
    rows,
    cols,
    scale_columns,
    row_stride,
    scale_stride,
    ACTIVATION: tl.constexpr,
    IS_GATED: tl.constexpr,
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    row = tl.program_id(1) * BLOCK
    col = tl.program_id(0) * (BLOCK * ACROSS)
    grad = load_tile(grad_codes, grad_scales, row, col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    x = load_tile(x_codes, x_scales, row, col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    value, slope = activation_and_slope(x, ACTIVATION, True)
    of_x = grad * slope
    if IS_GATED:
        up = load_tile(up_codes, up_scales, row, col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE)
        of_x = grad * up * slope
        store_tile(
            grad * value,
            grad_up_codes,
            grad_up_scales,
            seed,
            next_offset,
            row,
            col,
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
    store_tile(
        of_x,
        grad_x_codes,
        grad_x_scales,
        seed,
        offset,
        row,
        col,
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


def _like(codes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    empty = torch.empty(codes.shape, dtype=codes.dtype, device=codes.device)
    return empty, torch.empty(scales.shape, dtype=torch.float32, device=codes.device)


def block_activation_triton(
    x_codes: Tensor,
    x_scales: Tensor,
    up_codes: Tensor | None,
    up_scales: Tensor | None,
    block: int,
    activation: str,
    *,
    across: int | None = None,
    num_warps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes and scales of ``act(x)``, or of ``act(x) * up``; all codes contiguous ``[rows, cols]``."""
    rows, cols = x_codes.shape
    codes, scales = _like(x_codes, x_scales)
    if codes.numel() == 0:
        return codes, scales
    across = blocks_across(block) if across is None else across
    num_warps = tile_warps(block) if num_warps is None else num_warps
    with torch.cuda.device_of(x_codes):
        _forward_kernel[(triton.cdiv(cols, block * across), triton.cdiv(rows, block))](
            x_codes,
            x_scales,
            x_codes if up_codes is None else up_codes,
            x_scales if up_scales is None else up_scales,
            codes,
            scales,
            rows,
            cols,
            scales.shape[1],
            ACTIVATION=activation,
            IS_GATED=up_codes is not None,
            BLOCK=block,
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(x_codes.dtype),
            IS_INT8=x_codes.dtype is torch.int8,
            num_warps=num_warps,
        )
    return codes, scales


def block_activation_backward_triton(
    grad_codes: Tensor,
    grad_scales: Tensor,
    x_codes: Tensor,
    x_scales: Tensor,
    up_codes: Tensor | None,
    up_scales: Tensor | None,
    block: int,
    activation: str,
    side_by_side: bool,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    *,
    across: int | None = None,
    num_warps: int | None = None,
) -> tuple[Tensor | None, ...]:
    """Codes and scales of the gradient of ``x``, and of that of ``up`` if there is one; both as one if side by side."""
    rows, cols = x_codes.shape
    if side_by_side:
        codes, scales = (t.new_empty(len(t), 2 * t.shape[1]) for t in (grad_codes, grad_scales))
        grad_x, grad_up = (codes, scales), (codes[:, cols:], scales[:, grad_scales.shape[1] :])
        found: tuple[Tensor | None, ...] = (codes, scales, None, None)
    else:
        grad_x = _like(grad_codes, grad_scales)
        grad_up = grad_x if up_codes is None else _like(grad_codes, grad_scales)
        found = (*grad_x, *((None, None) if up_codes is None else grad_up))
    if x_codes.numel() == 0:
        return found
    across = blocks_across(block) if across is None else across
    if num_warps is None:
        # Two gradients take more registers than half the threads have.
        num_warps = roomy_warps(block) if up_codes is None else tile_warps(block)
    with torch.cuda.device_of(x_codes):
        _backward_kernel[(triton.cdiv(cols, block * across), triton.cdiv(rows, block))](
            grad_codes,
            grad_scales,
            x_codes,
            x_scales,
            x_codes if up_codes is None else up_codes,
            x_scales if up_scales is None else up_scales,
            *grad_x,
            *grad_up,
            seed,
            offset,
            offset + 1,
            rows,
            cols,
            grad_scales.shape[1],
            grad_x[0].stride(0),
            grad_x[1].stride(0),
            ACTIVATION=activation,
            IS_GATED=up_codes is not None,
            BLOCK=block,
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(grad_codes.dtype),
            IS_INT8=grad_codes.dtype is torch.int8,
            STOCHASTIC=stochastic,
            num_warps=num_warps,
        )
    return found
