"""2:4 masks on the GPU, packed or as booleans: one pass over the weight, everything in registers."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# A key holds the sixteen bits of a 4x4 pattern, row 0 in the highest nibble, column 0 in its highest bit; see
# separable.py, whose sums and ties these functions repeat operation by operation.


@triton.jit
def load_quads(weight, row, pair, cols, stride_row, stride_col, PAIRS: tl.constexpr):
    """Columns ``8 * pair .. 8 * pair + 7`` of a row as float32: four tensors ``[PAIRS, 2]``, one for each place in a
    group of four. Places past the last column are zero."""
    column = pair[:, None] * 8 + tl.arange(0, 8)[None, :]
    values = tl.load(weight + row * stride_row + column * stride_col, mask=column < cols, other=0.0)
    even, odd = tl.split(tl.reshape(values.to(tl.float32), (PAIRS, 2, 2, 2)))
    c0, c2 = tl.split(even)
    c1, c3 = tl.split(odd)
    return c0, c1, c2, c3


@triton.jit
def _one(row: tl.constexpr, column: tl.constexpr):
    return 1 << (15 - 4 * row - column)


@triton.jit
def _larger(score, key: tl.constexpr, other_score, other_key: tl.constexpr):
    """The larger score and its key; the first where they are equal. NaN loses (``maximum`` ignores it)."""
    best = tl.maximum(score, other_score)
    return best, tl.where(score == best, key, other_key)


@triton.jit
def _foremost2(score, key, other_score, other_key):
    """The larger score, and the larger key where they are equal; key 0 where both are NaN."""
    best = tl.maximum(score, other_score)
    return best, tl.maximum(tl.where(score == best, key, 0), tl.where(other_score == best, other_key, 0))


@triton.jit
def _cross(p, q, p_other, q_other, upper_row: tl.constexpr, b: tl.constexpr, c: tl.constexpr):
    """Rows p (``upper_row``) and q below it take one each of columns b < c."""
    straight: tl.constexpr = (1 << (15 - 4 * upper_row - b)) | (1 << (11 - 4 * upper_row - c))
    crossed: tl.constexpr = (1 << (15 - 4 * upper_row - c)) | (1 << (11 - 4 * upper_row - b))
    return _larger(p + q_other, straight, p_other + q, crossed)


@triton.jit
def _trade(upper, lower, upper_other, lower_other, a: tl.constexpr, d: tl.constexpr):
    """Column a < d has its two ones in the upper half and d in the lower, or the other way round."""
    kept: tl.constexpr = (0x8800 >> a) | (0x0088 >> d)
    traded: tl.constexpr = (0x8800 >> d) | (0x0088 >> a)
    return _larger(upper + lower_other, kept, upper_other + lower, traded)


@triton.jit
def _candidate(best, trade, cross_top, cross_bottom):
    score = trade + (cross_top + cross_bottom)
    return score, tl.maximum(best, score)


@triton.jit
def best_keys(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3):
    """Keys (int32) of the best patterns of 4x4 blocks with rows a, b, c, d; float32, signs ignored."""
    a0, a1, a2, a3 = tl.abs(a0), tl.abs(a1), tl.abs(a2), tl.abs(a3)
    b0, b1, b2, b3 = tl.abs(b0), tl.abs(b1), tl.abs(b2), tl.abs(b3)
    c0, c1, c2, c3 = tl.abs(c0), tl.abs(c1), tl.abs(c2), tl.abs(c3)
    d0, d1, d2, d3 = tl.abs(d0), tl.abs(d1), tl.abs(d2), tl.abs(d3)
    u0, u1, u2, u3 = a0 + b0, a1 + b1, a2 + b2, a3 + b3
    l0, l1, l2, l3 = c0 + d0, c1 + d1, c2 + d2, c3 + d3

    t01, t01_key = _cross(a0, b0, a1, b1, 0, 0, 1)
    t02, t02_key = _cross(a0, b0, a2, b2, 0, 0, 2)
    t03, t03_key = _cross(a0, b0, a3, b3, 0, 0, 3)
    t12, t12_key = _cross(a1, b1, a2, b2, 0, 1, 2)
    t13, t13_key = _cross(a1, b1, a3, b3, 0, 1, 3)
    t23, t23_key = _cross(a2, b2, a3, b3, 0, 2, 3)
    s01, s01_key = _cross(c0, d0, c1, d1, 2, 0, 1)
    s02, s02_key = _cross(c0, d0, c2, d2, 2, 0, 2)
    s03, s03_key = _cross(c0, d0, c3, d3, 2, 0, 3)
    s12, s12_key = _cross(c1, d1, c2, d2, 2, 1, 2)
    s13, s13_key = _cross(c1, d1, c3, d3, 2, 1, 3)
    s23, s23_key = _cross(c2, d2, c3, d3, 2, 2, 3)
    x01, x01_key = _trade(u0, l0, u1, l1, 0, 1)
    x02, x02_key = _trade(u0, l0, u2, l2, 0, 2)
    x03, x03_key = _trade(u0, l0, u3, l3, 0, 3)
    x12, x12_key = _trade(u1, l1, u2, l2, 1, 2)
    x13, x13_key = _trade(u1, l1, u3, l3, 1, 3)
    x23, x23_key = _trade(u2, l2, u3, l3, 2, 3)

    traded, traded_key = _foremost2(x01 + x23, x01_key | x23_key, x02 + x13, x02_key | x13_key)
    top, top_key = _foremost2(t01 + t23, t01_key | t23_key, t02 + t13, t02_key | t13_key)
    bottom, bottom_key = _foremost2(s01 + s23, s01_key | s23_key, s02 + s13, s02_key | s13_key)
    crossed = top + bottom
    best = tl.maximum(traded, crossed)
    f01, best = _candidate(best, x01, t23, s23)
    f02, best = _candidate(best, x02, t13, s13)
    f03, best = _candidate(best, x03, t12, s12)
    f12, best = _candidate(best, x12, t03, s03)
    f13, best = _candidate(best, x13, t02, s02)
    f23, best = _candidate(best, x23, t01, s01)

    key = tl.where(traded == best, traded_key, 0)
    key = tl.maximum(key, tl.where(crossed == best, top_key | bottom_key, 0))
    key = tl.maximum(key, tl.where(f01 == best, x01_key | t23_key | s23_key, 0))
    key = tl.maximum(key, tl.where(f02 == best, x02_key | t13_key | s13_key, 0))
    key = tl.maximum(key, tl.where(f03 == best, x03_key | t12_key | s12_key, 0))
    key = tl.maximum(key, tl.where(f12 == best, x12_key | t03_key | s03_key, 0))
    key = tl.maximum(key, tl.where(f13 == best, x13_key | t02_key | s02_key, 0))
    key = tl.maximum(key, tl.where(f23 == best, x23_key | t01_key | s01_key, 0))
    return tl.where(key == 0, 0xCC33, key)  # every pattern has a NaN: the first one, so that the mask is 2:4


@triton.jit
def _store_row(mask, octet, row, pair, width, cols, PACKED: tl.constexpr):
    """Store the eight mask bits of each pair of groups, as a byte or as eight booleans. ``width`` is a row's length."""
    if PACKED:
        tl.store(mask + row * width + pair, octet.to(tl.uint8), mask=pair < width)
    else:
        place = tl.arange(0, 8)[None, :]
        column = pair[:, None] * 8 + place
        tl.store(mask + row * width + column, ((octet[:, None] >> place) & 1).to(tl.int8), mask=column < cols)


@triton.jit
def _transposable_kernel(
    weight, mask, cols, width, programs_across, stride_row, stride_col, PAIRS: tl.constexpr, PACKED: tl.constexpr
):
    """A program finds the patterns of four rows by ``8 * PAIRS`` columns."""
    program = tl.program_id(0)
    row = (program // programs_across).to(tl.int64) * 4
    pair = (program % programs_across).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    a0, a1, a2, a3 = load_quads(weight, row, pair, cols, stride_row, stride_col, PAIRS)
    b0, b1, b2, b3 = load_quads(weight, row + 1, pair, cols, stride_row, stride_col, PAIRS)
    c0, c1, c2, c3 = load_quads(weight, row + 2, pair, cols, stride_row, stride_col, PAIRS)
    d0, d1, d2, d3 = load_quads(weight, row + 3, pair, cols, stride_row, stride_col, PAIRS)
    key = best_keys(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3)
    key = ((key & 0x5555) << 1) | ((key >> 1) & 0x5555)  # mirror each nibble: the lowest column in the lowest bit
    key = ((key & 0x3333) << 2) | ((key >> 2) & 0x3333)
    even, odd = tl.split(key)
    odd = tl.where(pair * 8 + 4 < cols, odd, 0)
    _store_row(mask, (even >> 12) | ((odd >> 8) & 0xF0), row, pair, width, cols, PACKED)
    _store_row(mask, ((even >> 8) & 0xF) | ((odd >> 4) & 0xF0), row + 1, pair, width, cols, PACKED)
    _store_row(mask, ((even >> 4) & 0xF) | (odd & 0xF0), row + 2, pair, width, cols, PACKED)
    _store_row(mask, (even & 0xF) | ((odd << 4) & 0xF0), row + 3, pair, width, cols, PACKED)


@triton.jit
def _rowwise_kernel(
    weight, mask, cols, width, programs_across, stride_row, stride_col, PAIRS: tl.constexpr, PACKED: tl.constexpr
):
    program = tl.program_id(0)
    row = (program // programs_across).to(tl.int64)
    pair = (program % programs_across).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    c0, c1, c2, c3 = load_quads(weight, row, pair, cols, stride_row, stride_col, PAIRS)
    c0, c1, c2, c3 = tl.abs(c0), tl.abs(c1), tl.abs(c2), tl.abs(c3)
    c0 = tl.where(c0 == c0, c0, -1.0)  # NaN ranks below every number
    c1 = tl.where(c1 == c1, c1, -1.0)
    c2 = tl.where(c2 == c2, c2, -1.0)
    c3 = tl.where(c3 == c3, c3, -1.0)
    w01, w02, w03 = (c0 >= c1).to(tl.int32), (c0 >= c2).to(tl.int32), (c0 >= c3).to(tl.int32)
    w12, w13, w23 = (c1 >= c2).to(tl.int32), (c1 >= c3).to(tl.int32), (c2 >= c3).to(tl.int32)
    # A place is kept if it wins against two of the three others; the lower one wins a tie.
    k0 = (w01 + w02 + w03) >= 2
    k1 = (1 - w01 + w12 + w13) >= 2
    k2 = (2 - w02 - w12 + w23) >= 2
    k3 = (3 - w03 - w13 - w23) >= 2
    nibble = k0.to(tl.int32) | (k1.to(tl.int32) << 1) | (k2.to(tl.int32) << 2) | (k3.to(tl.int32) << 3)
    even, odd = tl.split(nibble)
    odd = tl.where(pair * 8 + 4 < cols, odd, 0)
    _store_row(mask, even | (odd << 4), row, pair, width, cols, PACKED)


@triton.jit
def _flip_count_kernel(bits, other_bits, count, numel, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numel
    flips = tl.load(bits + place, mask=inside, other=0) ^ tl.load(other_bits + place, mask=inside, other=0)
    flips = flips.to(tl.int32)
    flips = flips - ((flips >> 1) & 0x55)
    flips = (flips & 0x33) + ((flips >> 2) & 0x33)
    flips = (flips + (flips >> 4)) & 0x0F
    tl.atomic_add(count, tl.sum(flips).to(tl.int64), sem="relaxed")


# Tiles are the fastest of a sweep on an H200 (benchmarks/operators24.py). Small programs win: more of them are
# resident, and load while others compute. Compiled for sm_90 they take at most 96 registers and spill none.
def _transposable_tile(weight: Tensor, packed: bool) -> tuple[int, int]:
    """``(pairs, num_warps)``."""
    if not packed:
        return 64, 2
    return (128, 2) if weight.element_size() == 2 else (64, 4)


def _mask(kernel, weight: Tensor, packed: bool, rows_at_once: int, pairs: int, num_warps: int) -> Tensor:
    rows, cols = weight.shape
    octets = (cols + 7) // 8
    width = octets if packed else cols
    mask = torch.empty((rows, width), dtype=torch.uint8 if packed else torch.bool, device=weight.device)
    if mask.numel() == 0:
        return mask
    programs_across = triton.cdiv(octets, pairs)
    with torch.cuda.device_of(weight):
        kernel[(programs_across * (rows // rows_at_once),)](
            weight,
            mask if packed else mask.view(torch.int8),
            cols,
            width,
            programs_across,
            *weight.stride(),
            PAIRS=pairs,
            PACKED=packed,
            num_warps=num_warps,
        )
    return mask


def transposable_mask_triton(
    weight: Tensor, packed: bool, *, pairs: int | None = None, num_warps: int | None = None
) -> Tensor:
    """See ``planish_kernels.mask24.transposable_mask`` and ``transposable_mask_bits``."""
    tile = _transposable_tile(weight, packed)
    return _mask(_transposable_kernel, weight, packed, 4, pairs or tile[0], num_warps or tile[1])


def rowwise_mask_triton(weight: Tensor, packed: bool, *, pairs: int = 512, num_warps: int | None = None) -> Tensor:
    """See ``planish_kernels.mask24.rowwise_mask`` and ``rowwise_mask_bits``."""
    num_warps = num_warps or (4 if weight.element_size() == 2 else 8)  # sixty-four bytes a thread
    return _mask(_rowwise_kernel, weight, packed, 1, pairs, num_warps)


def flip_count_triton(bits: Tensor, other_bits: Tensor, *, block: int = 8192, num_warps: int = 4) -> Tensor:
    """See ``planish_kernels.mask24.flip_count``. Integer sums: the order of the programs does not matter."""
    count = torch.zeros((), dtype=torch.int64, device=bits.device)
    if bits.numel():
        with torch.cuda.device_of(bits):
            _flip_count_kernel[(triton.cdiv(bits.numel(), block),)](
                bits.contiguous(), other_bits.contiguous(), count, bits.numel(), BLOCK=block, num_warps=num_warps
            )
    return count
