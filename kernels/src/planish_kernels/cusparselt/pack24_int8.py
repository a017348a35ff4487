"""The device functions that write cuSPARSELt's layout of 8-bit values (see ``layout.py``)."""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def pair_word_int8(left, right):
    """Two codes as one int16 with the left one in the low half."""
    return ((left.to(tl.int32) & 0xFF) | (right.to(tl.int32) << 8)).to(tl.int16)


@triton.jit
def store_codes_int8(
    metadata, code, first_row, first_group, rows, groups, ROWS: tl.constexpr, GROUPS: tl.constexpr
):  # fmt: skip
    """Store the codes ``[ROWS, GROUPS]`` (int32) of a tile that starts at a multiple of 16 rows and 16 groups.

    ``metadata``: int64. A word holds 16 codes: two rows that are eight apart times eight of the 16 groups of a block,
    those whose number has the same third bit. From its low end: the lowest bit of the group's number, the row, the
    fourth bit, the second bit.
    """
    row = tl.arange(0, ROWS)
    group = tl.arange(0, GROUPS)
    by_row = 1 + 255 * ((row >> 3) & 1)
    by_group = (1 + 15 * (group & 1)) * (1 + 65535 * ((group >> 3) & 1))
    upper = (group >> 1) & 1
    code = code * by_row[:, None] * by_group[None, :]
    low = _sum_of_words(code * (1 - upper)[None, :], ROWS, GROUPS)
    high = _sum_of_words(code * upper[None, :], ROWS, GROUPS)
    word = (high.to(tl.int64) << 32) | (low.to(tl.int64) & 0xFFFFFFFF)
    stripe = (first_row // 16 + tl.arange(0, ROWS // 16))[:, None, None]
    place = tl.arange(0, GROUPS // 8)
    block = (first_group // 16 + place // 2)[None, None, :]
    here = (stripe // 4) * (groups // 16) + block
    here = here * 64 + (stripe % 4) * 16 + tl.arange(0, 8)[None, :, None] * 2 + (place % 2)[None, None, :]
    tl.store(metadata + here, word, mask=(stripe * 16 < rows) & (block * 16 < groups))


@triton.jit
def _sum_of_words(code, ROWS: tl.constexpr, GROUPS: tl.constexpr):
    """``[ROWS, GROUPS]`` summed over what shares a word: ``[ROWS / 16, 8, GROUPS / 8]``."""
    # Of a group's number in its block: bit 3, bit 2 (which stays), bits 1 and 0.
    words = tl.sum(tl.reshape(code, (ROWS * GROUPS // 16, 2, 2, 4)), axis=3)
    words = tl.sum(words, axis=1)
    return tl.sum(tl.reshape(words, (ROWS // 16, 2, 8, GROUPS // 8)), axis=1)
