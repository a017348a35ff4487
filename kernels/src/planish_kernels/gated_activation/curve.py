"""Activations and their slopes inside Triton kernels; in torch: ``reference.activation_and_slope``."""

# mypy: disable-error-code="no-untyped-def"

import os

import triton
import triton.language as tl

# The instructions that exp and a division come down to, without what they do for numbers that a sigmoid never needs.
IS_COMPILED = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")


@triton.jit
def _power_of_two(x):
    if IS_COMPILED:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    else:
        return tl.exp2(x)


@triton.jit
def _reciprocal(x):
    if IS_COMPILED:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)
    else:
        return 1.0 / x


@triton.jit
def activation_and_slope(gate, ACTIVATION: tl.constexpr, FOR_CODES: tl.constexpr = False):
    """The activation and its derivative, in float32; the formulas are those of ``reference.py``, factored.

    ``FOR_CODES``: what is rounded to 8 bits afterwards takes a polynomial in place of the error function.
    """
    if ACTIVATION == "silu":
        sigmoid = _reciprocal(1.0 + _power_of_two(gate * -1.4426950408889634))  # log2(e)
        value = gate * sigmoid
        return value, sigmoid + value * (1.0 - sigmoid)
    elif ACTIVATION == "gelu_tanh":
        square = gate * gate
        # sigmoid(2 z) and 2 z', with z = sqrt(2 / pi) (gate + 0.044715 gate^3)
        sigmoid = _reciprocal(1.0 + _power_of_two(gate * (-2.302208198144325 - 0.1029432395800235 * square)))
        value = gate * sigmoid
        slope = 1.5957691216057308 + 0.21406444881780076 * square
        return value, sigmoid + value * (1.0 - sigmoid) * slope
    elif FOR_CODES:
        # The normal distribution by Abramowitz and Stegun 7.1.26, off by 8e-8; its exponential is that of the density.
        bell = _power_of_two(gate * gate * -0.7213475204444817)  # exp(-gate^2 / 2)
        t = _reciprocal(1.0 + 0.23164188861846924 * tl.abs(gate))  # 0.3275911 |gate| / sqrt(2)
        tail = 0.7107068705 + t * (-0.7265760135 + t * 0.5307027145)
        tail = bell * (t * (0.127414796 + t * (-0.142248368 + t * tail)))
        normal = tl.where(gate < 0, tail, 1.0 - tail)
        return gate * normal, normal + gate * (bell * 0.3989422804014327)
    else:
        normal = 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
        density = tl.exp(-0.5 * gate * gate) * 0.3989422804014327
        return gate * normal, normal + gate * density
