"""Gated activations ``act(gate) * x``, in plain torch, with their gradients written out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715


def activation_and_slope(gate: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """The activation and its derivative, in the dtype of ``gate``."""
    if activation == "silu":
        sigmoid = torch.sigmoid(gate)
        return gate * sigmoid, sigmoid * (1 + gate * (1 - sigmoid))
    if activation == "gelu_tanh":
        # 0.5 * (1 + tanh(z)) is sigmoid(2z), which loses nothing where tanh is near -1.
        sigmoid = torch.sigmoid(2 * _SQRT_2_OVER_PI * (gate + _CUBIC * gate**3))
        slope = 2 * _SQRT_2_OVER_PI * (1 + 3 * _CUBIC * gate**2)
        return gate * sigmoid, sigmoid + gate * sigmoid * (1 - sigmoid) * slope
    normal = 0.5 * (1 + torch.erf(gate * math.sqrt(0.5)))
    density = torch.exp(-0.5 * gate**2) * (1 / math.sqrt(2 * math.pi))
    return gate * normal, normal + gate * density


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def gated_activation_reference(x: Tensor, gate: Tensor, out: Tensor, activation: str) -> None:
    """``out = act(gate) * x``."""
    compute = _compute_dtype(x)
    out.copy_(activation_and_slope(gate.to(compute), activation)[0] * x.to(compute))


def gated_activation_backward_reference(
    grad_output: Tensor, x: Tensor, gate: Tensor, grad_x: Tensor, grad_gate: Tensor, activation: str
) -> None:
    """``grad_x = grad_output * act(gate)`` and ``grad_gate = grad_output * x * act'(gate)``."""
    compute = _compute_dtype(x)
    grad = grad_output.to(compute)
    activated, slope = activation_and_slope(gate.to(compute), activation)
    grad_x.copy_(grad * activated)
    grad_gate.copy_(grad * x.to(compute) * slope)
