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
    Returns ``place, value, other_place, other_value``: two different places as one-hot int32 (1, 2, 4 or 8) and what
    is kept there, in float32. The second value is zero where one place alone was drawn. A group that is not finite
    comes back as NaN at its first two places.
    """
    a0, a1, a2, a3 = tl.abs(x0), tl.abs(x1), tl.abs(x2), tl.abs(x3)
    low, high = a0 + a1, a2 + a3
    # A value that outweighs the three others is kept anyway and leaves the line. (A rounded sum is never less than a
    # term of it, hence there is at most one.)
    d0, d1, d2, d3 = a0 > a1 + high, a1 > a0 + high, a2 > a3 + low, a3 > a2 + low
    dominant = tl.where(d0, x0, tl.where(d1, x1, tl.where(d2, x2, tl.where(d3, x3, 0.0))))
    dominant_place = tl.where(d0, 1, tl.where(d1, 2, tl.where(d2, 4, 8)))
    first = tl.where(d0, 0.0, a0)
    second = first + tl.where(d1, 0.0, a1)
    third = second + tl.where(d2, 0.0, a2)
    total = third + tl.where(d3, 0.0, a3)
    single = dominant != 0.0
    height = tl.where(single, total, total * 0.5)
    # The largest float under `total`: a point must lie inside the line. (Zero has none: NaN, which minimum ignores.)
    below = (total.to(tl.int32, bitcast=True) - 1).to(tl.float32, bitcast=True)
    near = tl.minimum((ahead - 1.0) * height, below)
    far = tl.minimum(ahead * height, below)

    in0, in1, in2 = near < first, near < second, near < third
    other = tl.where(in0, x0, tl.where(in1, x1, tl.where(in2, x2, x3)))
    other_place = tl.where(in0, 1, tl.where(in1, 2, tl.where(in2, 4, 8)))
    in0, in1, in2 = far < first, far < second, far < third
    value = tl.where(in0, x0, tl.where(in1, x1, tl.where(in2, x2, x3)))
    place = tl.where(in0, 1, tl.where(in1, 2, tl.where(in2, 4, 8)))
    value = tl.where(single, dominant, tl.where(value < 0.0, -height, height))
    other = tl.where(other < 0.0, -height, height)
    place = tl.where(single, dominant_place, place)

    alone = place == other_place
    other = tl.where(alone, 0.0, other)
    other_place = tl.where(alone, tl.where(place == 1, 2, 1), other_place)
    finite = low + high < float("inf")
    value = tl.where(finite, value, float("nan"))
    other = tl.where(finite, other, float("nan"))
    place = tl.where(finite, place, 1)
    other_place = tl.where(finite, other_place, 2)
    return place, value, other_place, other


@triton.jit
def value_at(here: tl.constexpr, place, value, other_place, other):
    """What ``select24`` left at the one-hot place ``here``; a group that is not finite is NaN at all four."""
    empty = tl.where(value == value, 0.0, float("nan"))
    return tl.where(place == here, value, tl.where(other_place == here, other, empty))


@triton.jit
def pack_pair(place, value, other_place, other):
    """The two kept values in order of place, and the four mask bits (lowest place in the lowest bit) as int32."""
    ascending = place < other_place
    return tl.where(ascending, value, other), tl.where(ascending, other, value), place | other_place
