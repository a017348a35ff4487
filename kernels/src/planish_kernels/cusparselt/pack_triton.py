"""Fused packers: a dense matrix is read once and its packed buffers, of either or both orientations, are written."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.cusparselt.layout import BLOCK, packed_numel
from planish_kernels.cusparselt.pack24 import (
    pair_word,
    pick_two,
    store_codes_by_group,
    store_codes_by_row,
    store_codes_of_calls,
    store_words,
)
from planish_kernels.mvue24.select24 import select24
from planish_kernels.philox.triton import one_to_two, philox_words
from planish_kernels.soft_threshold24.triton import _second_smallest, _shrink

_TRITON_DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}

# How the places of a group are chosen.
MASK, LARGEST, SOFT_THRESHOLD = 0, 1, 2


@triton.jit
def _largest_two(x0, x1, x2, x3):
    """The four-bit mask of the two largest magnitudes; of equals the lowest place; NaN counts as infinite."""
    a0, a1, a2, a3 = tl.abs(x0), tl.abs(x1), tl.abs(x2), tl.abs(x3)
    infinity = float("inf")
    a0 = tl.where(a0 == a0, a0, infinity)
    a1 = tl.where(a1 == a1, a1, infinity)
    a2 = tl.where(a2 == a2, a2, infinity)
    a3 = tl.where(a3 == a3, a3, infinity)
    # How many go before each place: larger ones, and equals of a lower place.
    b10, b20, b30 = (a0 >= a1).to(tl.int32), (a0 >= a2).to(tl.int32), (a0 >= a3).to(tl.int32)
    b21, b31, b32 = (a1 >= a2).to(tl.int32), (a1 >= a3).to(tl.int32), (a2 >= a3).to(tl.int32)
    k0 = (3 - b10 - b20 - b30) < 2
    k1 = (b10 + 2 - b21 - b31) < 2
    k2 = (b20 + b21 + 1 - b32) < 2
    k3 = (b30 + b31 + b32) < 2
    return k0.to(tl.int32) | (k1.to(tl.int32) << 1) | (k2.to(tl.int32) << 2) | (k3.to(tl.int32) << 3)


@triton.jit
def _pack_rows(
    weight, bits, scale, values, metadata, first_row, first_col, rows, cols, stride, byte_stride,
    SELECT: tl.constexpr, DTYPE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Pack a tile with its groups along the rows of memory."""
    row = first_row + tl.arange(0, ROWS)
    col = first_col + tl.arange(0, COLS)
    group = first_col // 4 + tl.arange(0, COLS // 4)
    inside = (row[:, None] < rows) & (col[None, :] < cols)
    tile = tl.load(weight + row[:, None] * stride + col[None, :], mask=inside, other=0.0)
    even, odd = tl.split(tl.reshape(tile, (ROWS, COLS // 4, 2, 2)))
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    if SELECT == 0:
        marked = (row[:, None] < rows) & (group[None, :] * 4 < cols)
        byte = tl.load(bits + row[:, None] * byte_stride + group[None, :] // 2, mask=marked, other=0).to(tl.int32)
        kept = (byte >> (4 * (group & 1)[None, :].to(tl.int32))) & 15
    else:
        x0, x1, x2, x3 = x0.to(tl.float32), x1.to(tl.float32), x2.to(tl.float32), x3.to(tl.float32)
        kept = _largest_two(x0, x1, x2, x3)
        if SELECT == 2:
            threshold = _second_smallest(x0, x1, x2, x3)
            beta = tl.load(scale).to(tl.float32)
            x0, x1 = _shrink(x0, threshold) * beta, _shrink(x1, threshold) * beta
            x2, x3 = _shrink(x2, threshold) * beta, _shrink(x3, threshold) * beta
    left, right, code = pick_two(x0, x1, x2, x3, kept)
    store_words(values, pair_word(left, right, DTYPE), row, group, rows, cols // 4)
    store_codes_by_row(metadata, code, first_row, first_col // 4, rows, cols // 4, ROWS, COLS // 4)


@triton.jit
def _load_marked(weight, bits, row, col, inside, stride, byte_stride):
    """One row of every group of four rows, and whether each of its entries is kept."""
    x = tl.load(weight + row * stride + col, mask=inside, other=0.0)
    byte = tl.load(bits + row * byte_stride + col // 8, mask=inside, other=0).to(tl.int32)
    return x, (byte >> (col % 8).to(tl.int32)) & 1


@triton.jit
def _pack_cols(
    weight, bits, values, metadata, first_row, first_col, rows, cols, stride, byte_stride,
    DTYPE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Pack the transpose of a tile: its groups are four rows of memory."""
    group = first_row // 4 + tl.arange(0, ROWS // 4)
    col = first_col + tl.arange(0, COLS)
    row4 = group[:, None] * 4
    inside = (row4 < rows) & (col[None, :] < cols)
    x0, m0 = _load_marked(weight, bits, row4, col[None, :], inside, stride, byte_stride)
    x1, m1 = _load_marked(weight, bits, row4 + 1, col[None, :], inside, stride, byte_stride)
    x2, m2 = _load_marked(weight, bits, row4 + 2, col[None, :], inside, stride, byte_stride)
    x3, m3 = _load_marked(weight, bits, row4 + 3, col[None, :], inside, stride, byte_stride)
    left, right, code = pick_two(x0, x1, x2, x3, m0 | (m1 << 1) | (m2 << 2) | (m3 << 3))
    store_words(values, tl.trans(pair_word(left, right, DTYPE)), col, group, cols, rows // 4)
    store_codes_by_group(metadata, code, first_col, first_row // 4, cols, rows // 4, COLS, ROWS // 4)


@triton.jit
def _pack_kernel(
    weight, bits, scale, row_values, row_metadata, col_values, col_metadata, rows, cols, stride, byte_stride,
    SELECT: tl.constexpr, BY_ROWS: tl.constexpr, BY_COLS: tl.constexpr, DTYPE: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    first_row = tl.program_id(1).to(tl.int64) * ROWS
    first_col = tl.program_id(0).to(tl.int64) * COLS
    if BY_ROWS:
        _pack_rows(
            weight, bits, scale, row_values, row_metadata, first_row, first_col, rows, cols, stride, byte_stride,
            SELECT, DTYPE, ROWS, COLS,
        )  # fmt: skip
    if BY_COLS:
        # The tile is read again, out of the cache that the first half filled.
        _pack_cols(
            weight, bits, col_values, col_metadata, first_row, first_col, rows, cols, stride, byte_stride,
            DTYPE, ROWS, COLS,
        )  # fmt: skip


@triton.jit
def _mvue_lane(grad, word, call, lane: tl.constexpr, channel, tokens, channels, stride, DTYPE: tl.constexpr):
    """One group of four tokens for each Philox call and channel: its pair word and its code."""
    token = call * 16 + lane * 4
    here = grad + token * stride + channel
    inside = channel < channels
    x0 = tl.load(here, mask=inside & (token < tokens), other=0.0).to(tl.float32)
    x1 = tl.load(here + stride, mask=inside & (token + 1 < tokens), other=0.0).to(tl.float32)
    x2 = tl.load(here + 2 * stride, mask=inside & (token + 2 < tokens), other=0.0).to(tl.float32)
    x3 = tl.load(here + 3 * stride, mask=inside & (token + 3 < tokens), other=0.0).to(tl.float32)
    left, right, code = select24(x0, x1, x2, x3, one_to_two(word))
    return pair_word(left, right, DTYPE), code


@triton.jit
def _mvue_kernel(
    grad, values, metadata, seed, offset, tokens, channels, groups, stride,
    DTYPE: tl.constexpr, CALLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Read ``[16 * CALLS tokens, CHANNELS]`` once and write the packed transpose of its estimate."""
    first_call = tl.program_id(1).to(tl.int64) * CALLS
    first_channel = tl.program_id(0).to(tl.int64) * CHANNELS
    call = first_call + tl.arange(0, CALLS)[:, None]
    channel = first_channel + tl.arange(0, CHANNELS)[None, :]
    u0, u1, u2, u3 = philox_words(tl.load(seed), tl.load(offset), call * channels + channel)
    w0, c0 = _mvue_lane(grad, u0, call, 0, channel, tokens, channels, stride, DTYPE)
    w1, c1 = _mvue_lane(grad, u1, call, 1, channel, tokens, channels, stride, DTYPE)
    w2, c2 = _mvue_lane(grad, u2, call, 2, channel, tokens, channels, stride, DTYPE)
    w3, c3 = _mvue_lane(grad, u3, call, 3, channel, tokens, channels, stride, DTYPE)
    store_codes_of_calls(metadata, c0, c1, c2, c3, first_channel, first_call, channels, groups, CHANNELS, CALLS)
    # A join appends an axis: the high bit of the group's number within its call, then the low bit.
    word = tl.permute(tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (CALLS, CHANNELS, 4)), (1, 0, 2))
    row = first_channel + tl.arange(0, CHANNELS)
    group = first_call * 4 + tl.arange(0, CALLS * 4)
    store_words(values, tl.reshape(word, (CHANNELS, CALLS * 4)), row, group, channels, groups)


def _regions(packed: Tensor, rows: int, cols: int) -> tuple[Tensor, Tensor]:
    """The values of a packed buffer as int32 pairs, and its metadata as int64 words."""
    half = rows * cols // 2
    return packed[:half].view(torch.int32), packed[half:].view(torch.int64)


def pack_triton(
    weight: Tensor, bits: Tensor | None, scale: Tensor | None, by_rows: Tensor | None, by_cols: Tensor | None,
    *, block_rows: int = 32, block_cols: int = 64, num_warps: int = 1,
) -> None:  # fmt: skip
    """Fill packed buffers from ``weight [rows, cols]``; see ``planish_kernels.cusparselt.op.pack_``."""
    rows, cols = weight.shape
    some = by_rows if by_rows is not None else by_cols
    if some is None:
        return
    select = MASK if bits is not None else (LARGEST if scale is None else SOFT_THRESHOLD)
    row_values, row_metadata = (some, some) if by_rows is None else _regions(by_rows, rows, cols)
    col_values, col_metadata = (some, some) if by_cols is None else _regions(by_cols, cols, rows)
    grid = (triton.cdiv(cols, block_cols), triton.cdiv(rows, block_rows))
    with torch.cuda.device_of(weight):
        _pack_kernel[grid](
            weight,
            weight if bits is None else bits,
            weight if scale is None else scale,
            row_values,
            row_metadata,
            col_values,
            col_metadata,
            rows,
            cols,
            weight.stride(0),
            0 if bits is None else bits.stride(0),
            SELECT=select,
            BY_ROWS=by_rows is not None,
            BY_COLS=by_cols is not None,
            DTYPE=_TRITON_DTYPES[some.dtype],
            ROWS=block_rows,
            COLS=block_cols,
            num_warps=num_warps,
        )


def mvue_pack_triton(
    grad: Tensor, seed: Tensor, offset: Tensor, *, block_calls: int = 8, block_channels: int = 64, num_warps: int = 4
) -> Tensor:
    """The packed transpose of the estimate of ``grad [tokens, channels]``; see ``planish_kernels.cusparselt.op``."""
    tokens, channels = grad.shape
    padded = triton.cdiv(tokens, BLOCK) * BLOCK
    packed = torch.empty(packed_numel(channels, padded, grad.dtype), dtype=grad.dtype, device=grad.device)
    values, metadata = _regions(packed, channels, padded)
    grid = (triton.cdiv(channels, block_channels), triton.cdiv(padded, 16 * block_calls))
    with torch.cuda.device_of(grad):
        _mvue_kernel[grid](
            grad,
            values,
            metadata,
            seed,
            offset,
            tokens,
            channels,
            padded // 4,
            grad.stride(0),
            DTYPE=_TRITON_DTYPES[grad.dtype],
            CALLS=block_calls,
            CHANNELS=block_channels,
            num_warps=num_warps,
        )
    return packed
