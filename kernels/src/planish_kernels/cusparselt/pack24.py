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
def store_code_words(
    metadata, low, high, first_row, first_group, rows, groups, ROWS: tl.constexpr, GROUPS: tl.constexpr
):  # fmt: skip
    """Store metadata words, each 16 codes: 8 groups of two rows that are 8 apart.

    ``low``, ``high``: int32 ``[GROUPS / 8, ROWS / 16, 8]``, the halves of each word, for a tile that starts at a
    multiple of 16 rows and 8 groups. ``metadata``: int64.
    """
    word = (high.to(tl.int64) << 32) | (low.to(tl.int64) & 0xFFFFFFFF)
    half = (first_group // 8 + tl.arange(0, GROUPS // 8))[:, None, None]
    stripe = (first_row // 16 + tl.arange(0, ROWS // 16))[None, :, None]
    block = (stripe // 4) * (groups // 16) + half // 2
    here = block * 64 + (half % 2) * 32 + (stripe % 4) * 8 + tl.arange(0, 8)[None, None, :]
    tl.store(metadata + here, word, mask=(stripe * 16 < rows) & (half * 8 < groups))


@triton.jit
def row_weight(row):
    """Where a row's codes stand in their word: the second of two rows that are 8 apart is shifted by four bits."""
    return 1 + 15 * ((row >> 3) & 1)


@triton.jit
def group_weights(group):
    """Where a group's code stands in the low and in the high half of its word, as factors (zero: in the other half)."""
    place = (1 + 255 * ((group >> 2) & 1)) * (1 + 65535 * (group & 1))
    upper = (group >> 1) & 1
    return place * (1 - upper), place * upper


@triton.jit
def store_codes_by_group(
    metadata, code, first_row, first_group, rows, groups, ROWS: tl.constexpr, GROUPS: tl.constexpr
):  # fmt: skip
    """Store codes ``[GROUPS, ROWS]`` (int32) of a tile of the packed matrix that starts at 16 rows, 8 groups."""
    low_weight, high_weight = group_weights(tl.arange(0, GROUPS))
    code = code * row_weight(tl.arange(0, ROWS))[None, :]
    low = tl.reshape(code * low_weight[:, None], (GROUPS // 8, 8, ROWS // 16, 2, 8))
    high = tl.reshape(code * high_weight[:, None], (GROUPS // 8, 8, ROWS // 16, 2, 8))
    low = tl.sum(tl.sum(low, axis=1), axis=2)
    high = tl.sum(tl.sum(high, axis=1), axis=2)
    store_code_words(metadata, low, high, first_row, first_group, rows, groups, ROWS, GROUPS)


@triton.jit
def store_codes_by_row(
    metadata, code, first_row, first_group, rows, groups, ROWS: tl.constexpr, GROUPS: tl.constexpr
):  # fmt: skip
    """The same for codes ``[ROWS, GROUPS]``."""
    low_weight, high_weight = group_weights(tl.arange(0, GROUPS))
    code = code * row_weight(tl.arange(0, ROWS))[:, None]
    low = tl.reshape(code * low_weight[None, :], (ROWS // 16, 2, 8, GROUPS // 8, 8))
    high = tl.reshape(code * high_weight[None, :], (ROWS // 16, 2, 8, GROUPS // 8, 8))
    low = tl.permute(tl.sum(tl.sum(low, axis=4), axis=1), (2, 0, 1))
    high = tl.permute(tl.sum(tl.sum(high, axis=4), axis=1), (2, 0, 1))
    store_code_words(metadata, low, high, first_row, first_group, rows, groups, ROWS, GROUPS)


@triton.jit
def store_codes_of_calls(
    metadata, c0, c1, c2, c3, first_row, first_call, rows, groups, ROWS: tl.constexpr, CALLS: tl.constexpr
):  # fmt: skip
    """The same for the codes of four groups that follow each other, each ``[CALLS, ROWS]``: group = 4 · call + lane."""
    weight = row_weight(tl.arange(0, ROWS))[None, :] * (1 + 255 * (tl.arange(0, CALLS) & 1))[:, None]
    low = tl.reshape((c0 + c1 * 65536) * weight, (CALLS // 2, 2, ROWS // 16, 2, 8))
    high = tl.reshape((c2 + c3 * 65536) * weight, (CALLS // 2, 2, ROWS // 16, 2, 8))
    low = tl.sum(tl.sum(low, axis=3), axis=1)
    high = tl.sum(tl.sum(high, axis=3), axis=1)
    store_code_words(metadata, low, high, first_row, first_call * 4, rows, groups, ROWS, CALLS * 4)
