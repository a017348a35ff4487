"""Random words inside Triton kernels; ``words.py`` gives the same ones in torch."""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def philox_words(seed, offset, counter, ROUNDS: tl.constexpr = 10):
    """Four uint32 words for each int64 ``counter``; ``seed`` and ``offset`` are int64 scalars."""
    c0 = (counter & 0xFFFFFFFF).to(tl.uint32)
    c1 = ((counter >> 32) & 0xFFFFFFFF).to(tl.uint32)
    c2 = (c0 ^ c0) | (offset & 0xFFFFFFFF).to(tl.uint32)
    c3 = (c0 ^ c0) | ((offset >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return tl.philox(seed, c0, c1, c2, c3, ROUNDS)


@triton.jit
def one_to_two(word):
    """The uniform ``u`` of a random word as ``1 + u``: float32 in [1, 2), a multiple of 2^-23."""
    return ((word >> 9) | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def tile_uniforms(seed, offset, first_row, first_col, rows, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The uniforms of ``element_uniforms`` for a tile ``[BLOCK_M, BLOCK_N]``; ``first_col`` is a multiple of four."""
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK_M)[:, None]
    call = first_col.to(tl.int64) // 4 + tl.arange(0, BLOCK_N // 4)[None, :]
    w0, w1, w2, w3 = philox_words(seed, offset, call * rows + row)
    # A join appends an axis: the bits of the column's number, high to low.
    words = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (BLOCK_M, BLOCK_N))
    return one_to_two(words) - 1.0


@triton.jit
def _noises(w0, w1, w2, w3, SHIFT: tl.constexpr):
    """Noises ``[..., 2, 2]`` of the same half of four words: 128 + the half / 2^16, less 128.5."""
    word = tl.join(tl.join(w0, w2), tl.join(w1, w3))
    half = word >> 16 if SHIFT else word & 0xFFFF
    return (half | 0x43000001).to(tl.float32, bitcast=True) - 128.5


@triton.jit
def tile_noise(seed, offset, first_row, first_col, rows, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """``words.rounding_noise`` for a tile ``[BLOCK_M, BLOCK_N]``; ``first_col`` is a multiple of eight."""
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK_M)[:, None]
    call = first_col.to(tl.int64) // 8 + tl.arange(0, BLOCK_N // 8)[None, :]
    w0, w1, w2, w3 = philox_words(seed, offset, call * rows + row, 7)
    # A join appends an axis: the bits of the column's number, high to low.
    return tl.reshape(tl.join(_noises(w0, w1, w2, w3, False), _noises(w0, w1, w2, w3, True)), (BLOCK_M, BLOCK_N))
