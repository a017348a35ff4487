"""Activations and their slopes inside Triton kernels; in torch: ``reference.activation_and_slope``."""

# mypy: disable-error-code="no-untyped-def"

import os

import triton
import triton.language as tl

# The instructions that exp and a division come down to, without what they do for numbers that a sigmoid never needs.
IS_COMPILED = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")


@triton.jit
def _sigmoid(scaled):
    """``1 / (1 + 2^scaled)``, off by a few units in the last place."""
    if IS_COMPILED:
        power = tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [scaled], tl.float32, True, 1)
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [1.0 + power], tl.float32, True, 1)
    else:
        return 1.0 / (1.0 + tl.exp2(scaled))


@triton.jit
def activation_and_slope(gate, ACTIVATION: tl.constexpr):
    """The activation and its derivative, in float32; the formulas are those of ``reference.py``, factored."""
    if ACTIVATION == "silu":
        sigmoid = _sigmoid(gate * -1.4426950408889634)  # log2(e)
        value = gate * sigmoid
        return value, sigmoid + value * (1.0 - sigmoid)
    elif ACTIVATION == "gelu_tanh":
        square = gate * gate
        # sigmoid(2 z) and 2 z', with z = sqrt(2 / pi) (gate + 0.044715 gate^3)
        sigmoid = _sigmoid(gate * (-2.302208198144325 - 0.1029432395800235 * square))
        value = gate * sigmoid
        slope = 1.5957691216057308 + 0.21406444881780076 * square
        return value, sigmoid + value * (1.0 - sigmoid) * slope
    else:
        normal = 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
        density = tl.exp(-0.5 * gate * gate) * 0.3989422804014327
        return gate * normal, normal + gate * density
