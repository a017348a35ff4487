"""INT8 2:4 weights in two passes: the largest magnitude of each row and column, then codes and metadata."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.block_quantize.reference import block_scales
from planish_kernels.block_quantize.tile import round_codes
from planish_kernels.cusparselt.layout import packed_numel
from planish_kernels.cusparselt.pack24 import pick_two, store_words
from planish_kernels.cusparselt.pack24_int8 import pair_word_int8, store_codes_int8

_ROWS, _COLS = 64, 64


@triton.jit
def _load_kept(weight, bits, row, col, rows, cols, stride_row, stride_col, byte_stride):
    """Entries and whether each is kept; ``row`` and ``col`` broadcast."""
    inside = (row < rows) & (col < cols)
    values = tl.load(weight + row * stride_row + col * stride_col, mask=inside, other=0.0).to(tl.float32)
    byte = tl.load(bits + row * byte_stride + col // 8, mask=inside, other=0).to(tl.int32)
    return values, (byte >> (col % 8).to(tl.int32)) & 1


@triton.jit
def _largest_kernel(
    weight, bits, row_largest, col_largest, rows, cols, stride_row, stride_col, byte_stride,
    BY_COLS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    col = tl.program_id(0).to(tl.int64) * COLS + tl.arange(0, COLS)
    values, kept = _load_kept(weight, bits, row[:, None], col[None, :], rows, cols, stride_row, stride_col, byte_stride)
    # A comparison drops NaN: count it as infinite, so that its row shows it.
    magnitude = tl.where(values == values, tl.abs(values), float("inf"))
    magnitude = tl.where(kept != 0, magnitude, 0.0)
    # Magnitudes are ordered as their bits are; which program comes first changes nothing.
    tl.atomic_max(row_largest + row, tl.max(magnitude, 1).to(tl.int32, bitcast=True), mask=row < rows)
    if BY_COLS:
        tl.atomic_max(col_largest + col, tl.max(magnitude, 0).to(tl.int32, bitcast=True), mask=col < cols)


@triton.jit
def _codes(values, scale):
    """int8 codes as int32; of an entry whose scale is not finite, zero."""
    ratio = tl.where(scale == scale, tl.div_rn(values, scale), 0.0)
    return round_codes(ratio, ratio, True, False).to(tl.int32)


@triton.jit
def _pack_kernel(
    weight, bits, row_scales, col_scales, row_values, row_metadata, col_values, col_metadata,
    rows, cols, stride_row, stride_col, byte_stride,
    BY_COLS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    first_row = tl.program_id(1).to(tl.int64) * ROWS
    first_col = tl.program_id(0).to(tl.int64) * COLS
    row = first_row + tl.arange(0, ROWS)
    col = first_col + tl.arange(0, COLS)
    values, kept = _load_kept(weight, bits, row[:, None], col[None, :], rows, cols, stride_row, stride_col, byte_stride)
    scale = tl.load(row_scales + row, mask=row < rows, other=1.0)[:, None]
    codes = _codes(values, tl.broadcast_to(scale, (ROWS, COLS)))
    even, odd = tl.split(tl.reshape(codes, (ROWS, COLS // 4, 2, 2)))
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    even, odd = tl.split(tl.reshape(kept, (ROWS, COLS // 4, 2, 2)))
    m0, m2 = tl.split(even)
    m1, m3 = tl.split(odd)
    left, right, code = pick_two(x0, x1, x2, x3, m0 | (m1 << 1) | (m2 << 2) | (m3 << 3))
    group = first_col // 4 + tl.arange(0, COLS // 4)
    store_words(row_values, pair_word_int8(left, right), row, group, rows, cols // 4)
    store_codes_int8(row_metadata, code, first_row, first_col // 4, rows, cols // 4, ROWS, COLS // 4)
    if BY_COLS:
        # The tile is read again, out of the cache that the first half filled: its groups are four rows of memory.
        group = first_row // 4 + tl.arange(0, ROWS // 4)
        row4 = group[:, None] * 4
        scale = tl.load(col_scales + col, mask=col < cols, other=1.0)[None, :]
        scale = tl.broadcast_to(scale, (ROWS // 4, COLS))
        x0, m0 = _load_kept(weight, bits, row4, col[None, :], rows, cols, stride_row, stride_col, byte_stride)
        x1, m1 = _load_kept(weight, bits, row4 + 1, col[None, :], rows, cols, stride_row, stride_col, byte_stride)
        x2, m2 = _load_kept(weight, bits, row4 + 2, col[None, :], rows, cols, stride_row, stride_col, byte_stride)
        x3, m3 = _load_kept(weight, bits, row4 + 3, col[None, :], rows, cols, stride_row, stride_col, byte_stride)
        kept = m0 | (m1 << 1) | (m2 << 2) | (m3 << 3)
        left, right, code = pick_two(_codes(x0, scale), _codes(x1, scale), _codes(x2, scale), _codes(x3, scale), kept)
        store_words(col_values, tl.trans(pair_word_int8(left, right)), col, group, cols, rows // 4)
        store_codes_int8(col_metadata, tl.trans(code), first_col, first_row // 4, cols, rows // 4, COLS, ROWS // 4)


def _regions(packed: Tensor, numel: int) -> tuple[Tensor, Tensor]:
    """The values of a packed buffer as int16 pairs, and its metadata as int64 words."""
    return packed[: numel // 2].view(torch.int16), packed[numel // 2 :].view(torch.int64)


def row_pack24_triton(
    weight: Tensor, mask: Tensor, both_ways: bool, *, num_warps: int = 4
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Packed codes and scales, by rows and by columns; see ``planish_kernels.row_pack24.row_pack24``."""
    rows, cols = weight.shape
    numel = rows * cols
    largest = torch.zeros(rows + (cols if both_ways else 0), dtype=torch.int32, device=weight.device)
    row_largest, col_largest = largest[:rows], largest[rows:]
    by_rows = torch.empty(packed_numel(rows, cols, torch.int8), dtype=torch.int8, device=weight.device)
    by_cols = torch.empty_like(by_rows) if both_ways else by_rows.new_empty(0)
    common = (rows, cols, *weight.stride(), mask.stride(0))
    sizes = {"BY_COLS": both_ways, "ROWS": _ROWS, "COLS": _COLS, "num_warps": num_warps}
    grid = (triton.cdiv(cols, _COLS), triton.cdiv(rows, _ROWS))
    with torch.cuda.device_of(weight):
        _largest_kernel[grid](weight, mask, row_largest, col_largest, *common, **sizes)
        scales = block_scales(largest.view(torch.float32), torch.int8)
        row_scales, col_scales = scales[:rows].clone(), scales[rows:].clone()
        here, there = _regions(by_rows, numel), _regions(by_cols if both_ways else by_rows, numel)
        _pack_kernel[grid](weight, mask, row_scales, col_scales, *here, *there, *common, **sizes)
    return by_rows, row_scales, by_cols, col_scales
