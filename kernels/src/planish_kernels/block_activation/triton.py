"""Activations of block-scaled operands: a tile is decoded, computed and quantized in registers."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

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
    x = load_tile(x_codes, x_scales, row, col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE, IS_GATED)
    value, _ = activation_and_slope(x, ACTIVATION, True)
    if IS_GATED:
        value *= load_tile(up_codes, up_scales, row, col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE, IS_GATED)
    store_tile(
        value, codes, scales, row, col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE, LARGEST, IS_INT8
    )  # fmt: skip


@triton.jit
def _gradients(
    grad_codes,
    grad_scale,
    x_codes,
    x_scale,
    up_codes,
    up_scale,
    row,
    col,
    rows,
    cols,
    ACTIVATION: tl.constexpr,
    IS_GATED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    """The gradients of ``x`` and ``up`` for some rows of a tile; that of ``x`` twice if there is no ``up``."""
    BUSY: tl.constexpr = IS_GATED and CHUNK < BLOCK
    grad = load_rows(grad_codes, grad_scale, row, col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE, BUSY)
    x = load_rows(x_codes, x_scale, row, col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE, BUSY)
    value, slope = activation_and_slope(x, ACTIVATION, True)
    if IS_GATED:
        up = load_rows(up_codes, up_scale, row, col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE, BUSY)
        of_x = grad * up * slope
        of_up = grad * value
    else:
        of_x = grad * slope
        of_up = of_x
    return of_x, of_up


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
    CHUNK: tl.constexpr,
    ACROSS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    """Two passes over a tile, some rows at a time: the largest magnitudes, then the codes.

    The gradients are computed twice, from codes that the caches still hold: a tile of them in float32 would fill the
    registers of a multiprocessor, and nothing would be left to hide what its one program waits for.
    """
    row = tl.program_id(1) * BLOCK
    col = tl.program_id(0) * (BLOCK * ACROSS)
    grad_scale = load_scales(grad_scales, row, col, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    x_scale = load_scales(x_scales, row, col, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    up_scale = x_scale
    if IS_GATED:
        up_scale = load_scales(up_scales, row, col, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    most_of_x = tl.zeros((CHUNK, BLOCK * ACROSS), tl.float32)
    most_of_up = tl.zeros((CHUNK, BLOCK * ACROSS), tl.float32)
    for chunk in tl.range(0, BLOCK, CHUNK):
        of_x, of_up = _gradients(
            grad_codes, grad_scale, x_codes, x_scale, up_codes, up_scale, row + chunk, col, rows, cols,
            ACTIVATION, IS_GATED, CHUNK, BLOCK, ACROSS, IS_WHOLE,
        )  # fmt: skip
        most_of_x = larger(most_of_x, magnitudes(of_x, row + chunk, col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE))
        if IS_GATED:
            most_of_up = larger(
                most_of_up, magnitudes(of_up, row + chunk, col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE)
            )
    scale_of_x = tile_scale(most_of_x, CHUNK, BLOCK, ACROSS, LARGEST)
    scale_of_up = scale_of_x
    if IS_GATED:
        scale_of_up = tile_scale(most_of_up, CHUNK, BLOCK, ACROSS, LARGEST)
    draw_of_x = load_draw(seed, offset, STOCHASTIC)
    draw_of_up = load_draw(seed, next_offset, STOCHASTIC and IS_GATED)
    for chunk in tl.range(0, BLOCK, CHUNK):
        of_x, of_up = _gradients(
            grad_codes, grad_scale, x_codes, x_scale, up_codes, up_scale, row + chunk, col, rows, cols,
            ACTIVATION, IS_GATED, CHUNK, BLOCK, ACROSS, IS_WHOLE,
        )  # fmt: skip
        if IS_GATED:
            rounded = round_rows(
                of_up, scale_of_up, draw_of_up, row + chunk, col, rows, CHUNK, BLOCK, ACROSS, IS_INT8, STOCHASTIC
            )
            store_rows(rounded, grad_up_codes, row + chunk, col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE, row_stride)
        rounded = round_rows(
            of_x, scale_of_x, draw_of_x, row + chunk, col, rows, CHUNK, BLOCK, ACROSS, IS_INT8, STOCHASTIC
        )
        store_rows(rounded, grad_x_codes, row + chunk, col, rows, cols, CHUNK, BLOCK, ACROSS, IS_WHOLE, row_stride)
    store_scales(scale_of_x, grad_x_scales, row, col, scale_columns, BLOCK, ACROSS, IS_WHOLE, scale_stride)
    if IS_GATED:
        store_scales(scale_of_up, grad_up_scales, row, col, scale_columns, BLOCK, ACROSS, IS_WHOLE, scale_stride)


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
    chunk: int | None = None,
    maxnreg: int | None = None,
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
    if chunk is None and up_codes is None and block == 128:
        # The one gradient of a large tile fits into the registers of many warps. To compute it twice costs more: 313 us
        # for GELU on [8192, 16384] on an H200 in place of 248.
        chunk, num_warps, maxnreg = block, num_warps or 16, maxnreg or 64
    chunk = chunk_rows(block) if chunk is None else chunk
    if maxnreg is None and chunk < block and grad_codes.dtype is torch.float8_e4m3fn and activation == "silu":
        maxnreg = 64  # eight programs to a processor, where 72 would do for seven; none of them spills
    num_warps = chunk_warps(block, chunk) if num_warps is None else num_warps
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
            CHUNK=chunk,
            ACROSS=across,
            IS_WHOLE=is_whole(rows, cols, block, across),
            LARGEST=largest_code(grad_codes.dtype),
            IS_INT8=grad_codes.dtype is torch.int8,
            STOCHASTIC=stochastic,
            num_warps=num_warps,
            maxnreg=maxnreg,
        )
    return found
