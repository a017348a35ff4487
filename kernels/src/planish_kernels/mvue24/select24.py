"""The device functions of the minimum-variance 2:4 estimator, for every Triton kernel that packs a gradient.

``reference.py`` holds the same arithmetic in torch, operation by operation: in float32 the two agree bit for bit.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def _with_sign(magnitude, x):
    """``magnitude`` (not negative) with the sign of ``x``, both float32."""
    return ((x.to(tl.int32, bitcast=True) & -2147483648) | magnitude.to(tl.int32, bitcast=True)).to(
        tl.float32, bitcast=True
    )


@triton.jit
def select24(x0, x1, x2, x3, ahead):
    """Keep two of four float32 values without bias and with the least variance.

    Args: the four values, and ``ahead = 1 + u`` from ``one_to_two``.
    Returns ``left, right, code``: what is kept, in float32 and in the order of place, and the two places as
    ``first + 4 * second`` in int32. A value is zero where one place alone was drawn; both are NaN in a group that is
    not finite.

    Each line of this function counts: the packers are bound by it, not by memory.
    """
    a0, a1, a2, a3 = tl.abs(x0), tl.abs(x1), tl.abs(x2), tl.abs(x3)
    # The smallest float keeps the interval of a value that is alone in its group from vanishing.
    low, high = (a0 + a1) + 1.401298464324817e-45, (a2 + a3) + 1.401298464324817e-45
    first = tl.minimum(a0, a1 + high)
    second = first + tl.minimum(a1, a0 + high)
    third = second + tl.minimum(a2, a3 + low)
    total = third + tl.minimum(a3, a2 + low)
    height = total * 0.5
    near = (ahead - 1.0) * height
    # 1 - 2^-24: the largest float under `total`, since a point must lie inside the line.
    far = tl.minimum(ahead * height, total * 0.999999940395355224609375)

    near0, near1 = near < first, near < second
    far1, far2 = (far < second) & near0, (far < third) & near1
    left = tl.where(near0, x0, tl.where(near1, x1, x2))
    right = tl.where(far1, x1, tl.where(far2, x2, x3))
    code = tl.where(near0, 0, tl.where(near1, 1, 2)) + tl.where(far1, 4, tl.where(far2, 8, 12))
    spoil = (low + high) * 0.0
    left = _with_sign(tl.maximum(tl.abs(left), height), left) + spoil
    right = _with_sign(tl.maximum(tl.abs(right), height), right) + spoil
    return left, right, code


@triton.jit
def value_at(place: tl.constexpr, left, right, code):
    """What ``select24`` left at a place (0 to 3); a group that is not finite is NaN at all four."""
    empty = tl.where(left == left, 0.0, float("nan"))
    return tl.where((code & 3) == place, left, tl.where((code >> 2) == place, right, empty))


@triton.jit
def bits_of(code):
    """The four mask bits of a code (lowest place in the lowest bit), int32."""
    one = tl.full(code.shape, 1, tl.int32)
    return (one << (code & 3)) | (one << (code >> 2))
