"""The device functions that write cuSPARSELt's layout of 16-bit values (see ``layout.py``), for every Triton packer."""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def complete(kept):
    """A four-bit mask of at most two places, filled up to two as the library fills it."""
    filled = tl.where((kept & (kept - 1)) == 0, kept | 8, kept)
    return tl.where((kept & 7) == 0, 12, filled)


@triton.jit
def code_of(places):
    """The metadata code of a four-bit mask of exactly two places: first place + 4 · second place."""
    first = tl.where((places & 1) != 0, 0, tl.where((places & 2) != 0, 1, 2))
    second = tl.where((places & 8) != 0, 12, tl.where((places & 4) != 0, 8, 4))
    return first + second


@triton.jit
def pick_two(x0, x1, x2, x3, kept):
    """The two slots of a group in order of place, and its metadata code; places that are not in ``kept`` give zero."""
    zero = tl.zeros_like(x0)
    y0 = tl.where((kept & 1) != 0, x0, zero)
    y1 = tl.where((kept & 2) != 0, x1, zero)
    y2 = tl.where((kept & 4) != 0, x2, zero)
    y3 = tl.where((kept & 8) != 0, x3, zero)
    places = complete(kept)
    left = tl.where((places & 1) != 0, y0, tl.where((places & 2) != 0, y1, y2))
    right = tl.where((places & 8) != 0, y3, tl.where((places & 4) != 0, y2, y1))
    return left, right, code_of(places)


@triton.jit
def pair_word(left, right, dtype: tl.constexpr):
    """Two values, rounded to the 16-bit ``dtype``, as one int32 with the left one in the low half."""
    low = left.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    high = right.to(dtype).to(tl.int16, bitcast=True).to(tl.int32)
    return low | (high << 16)


@triton.jit
def store_words(values, word, row, group, rows, groups):
    """Store pair words ``[ROWS, GROUPS]`` at ``values`` (int32, row-major ``[rows, groups]``)."""
    inside = (row[:, None] < rows) & (group[None, :] < groups)
    tl.store(values + row[:, None] * groups + group[None, :], word, mask=inside)


@triton.jit
def store_codes(metadata, code, first_row, first_group, rows, groups, ROWS: tl.constexpr, GROUPS: tl.constexpr):
    """Store codes ``[ROWS, GROUPS]`` of a tile at ``metadata`` (int64 words of 16 codes).

    The tile starts at a multiple of 16 rows and 8 groups. A word holds 8 groups of two rows that are 8 apart.
    """
    group = tl.arange(0, GROUPS)
    row = tl.arange(0, ROWS)
    shift = 16 * (group & 3)[None, :] + 8 * ((group >> 2) & 1)[None, :] + 4 * ((row >> 3) & 1)[:, None]
    split = tl.reshape(code.to(tl.int64) << shift.to(tl.int64), (ROWS // 16, 2, 8, GROUPS // 8, 8))
    word = tl.sum(tl.sum(split, axis=4), axis=1)
    word = tl.permute(word, (2, 0, 1))
    half = (first_group // 8 + tl.arange(0, GROUPS // 8))[:, None, None]
    stripe = (first_row // 16 + tl.arange(0, ROWS // 16))[None, :, None]
    block = (stripe // 4) * (groups // 16) + half // 2
    here = block * 64 + (half % 2) * 32 + (stripe % 4) * 8 + tl.arange(0, 8)[None, None, :]
    tl.store(metadata + here, word, mask=(stripe * 16 < rows) & (half * 8 < groups))
