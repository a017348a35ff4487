"""Activations and their slopes inside Triton kernels; in torch: ``reference.activation_and_slope``."""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def _sigmoid(z):
    return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def activation_and_slope(gate, ACTIVATION: tl.constexpr):
    """The activation and its derivative, in float32; the formulas are those of ``reference.py``."""
    if ACTIVATION == "silu":
        sigmoid = _sigmoid(gate)
        return gate * sigmoid, sigmoid * (1.0 + gate * (1.0 - sigmoid))
    elif ACTIVATION == "gelu_tanh":
        sigmoid = _sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
        slope = 1.5957691216057308 * (1.0 + 0.134145 * gate * gate)
        return gate * sigmoid, sigmoid + gate * sigmoid * (1.0 - sigmoid) * slope
    else:
        normal = 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
        density = tl.exp(-0.5 * gate * gate) * 0.3989422804014327
        return gate * normal, normal + gate * density
