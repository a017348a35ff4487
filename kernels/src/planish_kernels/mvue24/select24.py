"""The device functions of the minimum-variance 2:4 estimator, for every Triton kernel that packs a gradient.

``reference.py`` holds the same arithmetic in torch, operation by operation: in float32 the two agree bit for bit.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def philox_words(seed, offset, counter):
    """Four uint32 words for each int64 ``counter``; ``seed`` and ``offset`` are int64 scalars.

    Group ``g`` (four tokens) of channel ``c`` takes word ``g % 4`` of the counter ``(g // 4) * channels + c``.
    """
    c0 = (counter & 0xFFFFFFFF).to(tl.uint32)
    c1 = ((counter >> 32) & 0xFFFFFFFF).to(tl.uint32)
    c2 = (c0 ^ c0) | (offset & 0xFFFFFFFF).to(tl.uint32)
    c3 = (c0 ^ c0) | ((offset >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return tl.philox(seed, c0, c1, c2, c3)


@triton.jit
def one_to_two(word):
    """The uniform ``u`` of a random word as ``1 + u``: float32 in [1, 2), a multiple of 2^-23."""
    return ((word >> 9) | 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def select24(x0, x1, x2, x3, ahead):
    """Keep two of four float32 values without bias and with the least variance.

    Args: the four values, and ``ahead = 1 + u`` from ``one_to_two``.
    Returns ``k0, k1, k2, k3`` (int1; exactly two are set) and ``y0, y1, y2, y3`` (float32, zero where not kept). A
    group that is not finite comes back as four NaN, with the first two kept.
    """
    a0, a1, a2, a3 = tl.abs(x0), tl.abs(x1), tl.abs(x2), tl.abs(x3)
    low, high = a0 + a1, a2 + a3
    d0 = a0 >= a1 + high
    d1 = (a1 >= a0 + high) & ~d0
    single = d0 | d1
    d2 = (a2 >= a3 + low) & ~single
    single = single | d2
    d3 = (a3 >= a2 + low) & ~single
    single = single | d3

    first = tl.where(d0, 0.0, a0)
    second = first + tl.where(d1, 0.0, a1)
    third = second + tl.where(d2, 0.0, a2)
    total = third + tl.where(d3, 0.0, a3)
    height = tl.where(single, total, total * 0.5)
    # The largest float under `total`: a point must lie inside the line. (Zero has none: NaN, which minimum ignores.)
    below = (total.to(tl.int32, bitcast=True) - 1).to(tl.float32, bitcast=True)
    near = tl.minimum((ahead - 1.0) * height, below)
    far = tl.minimum(ahead * height, below)

    near1, near2, near3 = near >= first, near >= second, near >= third
    far1, far2, far3 = far >= first, far >= second, far >= third
    k0 = ~near1 | tl.where(single, d0, ~far1)
    k1 = (near1 & ~near2) | tl.where(single, d1, far1 & ~far2)
    k2 = (near2 & ~near3) | tl.where(single, d2, far2 & ~far3)
    k3 = near3 | tl.where(single, d3, far3)

    y0 = tl.where(k0, tl.where(d0, x0, tl.where(x0 < 0, -height, height)), 0.0)
    y1 = tl.where(k1, tl.where(d1, x1, tl.where(x1 < 0, -height, height)), 0.0)
    y2 = tl.where(k2, tl.where(d2, x2, tl.where(x2 < 0, -height, height)), 0.0)
    y3 = tl.where(k3, tl.where(d3, x3, tl.where(x3 < 0, -height, height)), 0.0)

    # Both points may fall on one place: mark the lowest free place beside it, whose value is zero.
    alone = (k0.to(tl.int32) + k1.to(tl.int32) + k2.to(tl.int32) + k3.to(tl.int32)) < 2
    k1 = k1 | (alone & k0)
    k0 = k0 | alone

    infinite = ~((a0 + a1) + high < float("inf"))
    y0 = tl.where(infinite, float("nan"), y0)
    y1 = tl.where(infinite, float("nan"), y1)
    y2 = tl.where(infinite, float("nan"), y2)
    y3 = tl.where(infinite, float("nan"), y3)
    k0 = k0 | infinite
    k1 = k1 | infinite
    k2 = k2 & ~infinite
    k3 = k3 & ~infinite
    return k0, k1, k2, k3, y0, y1, y2, y3


@triton.jit
def pack_pair(k0, k1, k2, k3, y0, y1, y2, y3):
    """The two kept values in order of place, and the four mask bits (lowest place in the lowest bit) as int32."""
    left = tl.where(k0, y0, tl.where(k1, y1, y2))
    right = tl.where(k3, y3, tl.where(k2, y2, y1))
    nibble = k0.to(tl.int32) | (k1.to(tl.int32) << 1) | (k2.to(tl.int32) << 2) | (k3.to(tl.int32) << 3)
    return left, right, nibble
