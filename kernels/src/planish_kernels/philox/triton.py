"""Random words inside Triton kernels; ``words.py`` gives the same ones in torch."""

# mypy: disable-error-code="no-untyped-def"

import os

import triton
import triton.language as tl

# What is written in PTX is computed otherwise in the interpreter.
IS_COMPILED = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")


@triton.jit
def _halves(number):
    """The low and the high 32 bits of a 64-bit number, uint32."""
    return (number & 0xFFFFFFFF).to(tl.uint32), ((number >> 32) & 0xFFFFFFFF).to(tl.uint32)


@triton.jit
def _product(a, B: tl.constexpr):
    """The low and the high half of a product of uint32 numbers, from one instruction where two would be usual."""
    if IS_COMPILED:
        return tl.inline_asm_elementwise(
            "{ .reg .b64 wide; mul.wide.u32 wide, $2, $3; mov.b64 {$0, $1}, wide; }",
            "=r,=r,r,r", [a, tl.full((), B, tl.uint32)], (tl.uint32, tl.uint32), True, 1,
        )  # fmt: skip
    else:
        return _halves(a.to(tl.uint64) * B)


@triton.jit
def philox_words(seed, offset, counter, ROUNDS: tl.constexpr = 10):
    """Four uint32 words for each int64 ``counter``; ``seed`` and ``offset`` are int64 scalars."""
    # tl.philox multiplies twice, for either half of a product; one wide multiplication gives both.
    c0, c1 = _halves(counter)
    c2, c3 = _halves(offset)
    k0, k1 = _halves(seed)
    c2, c3 = (c0 ^ c0) | c2, (c0 ^ c0) | c3
    for _ in tl.static_range(ROUNDS):
        low0, high0 = _product(c0, 0xD2511F53)
        low1, high1 = _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


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
def _noises(w0, w1, w2, w3, SHIFT: tl.constexpr, EIGHTHS: tl.constexpr):
    """Noises ``[..., 2, 2]`` of the same half of four words: 128 + the half / 2^16, less 128.5; or an eighth of it."""
    word = tl.join(tl.join(w0, w2), tl.join(w1, w3))
    half = word >> 16 if SHIFT else word & 0xFFFF
    if EIGHTHS:
        noise = (half | 0x41800001).to(tl.float32, bitcast=True) - 16.0625
    else:
        noise = (half | 0x43000001).to(tl.float32, bitcast=True) - 128.5
    return noise


@triton.jit
def tile_noise(
    seed, offset, first_row, first_col, rows,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, EIGHTHS: tl.constexpr = False,
):  # fmt: skip
    """``words.rounding_noise`` for a tile ``[BLOCK_M, BLOCK_N]``; ``first_col`` is a multiple of eight.

    ``EIGHTHS``: an eighth of it.
    """
    row = first_row.to(tl.int64) + tl.arange(0, BLOCK_M)[:, None]
    call = first_col.to(tl.int64) // 8 + tl.arange(0, BLOCK_N // 8)[None, :]
    w0, w1, w2, w3 = philox_words(seed, offset, call * rows + row, 7)
    # A join appends an axis: the bits of the column's number, high to low.
    low, high = _noises(w0, w1, w2, w3, False, EIGHTHS), _noises(w0, w1, w2, w3, True, EIGHTHS)
    return tl.reshape(tl.join(low, high), (BLOCK_M, BLOCK_N))
