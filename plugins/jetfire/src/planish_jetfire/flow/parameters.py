"""Parameters of linear layers as autograd functions are handed them, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from planish_kernels.formats.block_scaled import BlockScaled
from torch import Tensor

from planish_jetfire.flow.arithmetic import Linear, column_sums


def linears_of(parameters: Sequence[Any], transposed: Sequence[bool]) -> list[Linear]:
    """Linears of a flat sequence weight, bias, weight, bias, …"""
    pairs = zip(parameters[::2], parameters[1::2], transposed, strict=True)
    return [Linear(weight, bias, flag) for weight, bias, flag in pairs]


def linear_grads(
    linear: Linear,
    grad_output: BlockScaled,
    input: BlockScaled,
    dense_grad: Tensor | None,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of weight and bias, as far as they are needed.

    Args:
        linear: The layer.
        grad_output: Gradient of its output.
        input: Its input.
        dense_grad: The gradient before it was quantized, if there is such a thing; the bias takes its sums of it.
        needed: Whether weight and bias need theirs.
    """
    weight = linear.weight_grad(grad_output, input) if needed[0] else None
    if linear.bias is None or not needed[1]:
        return [weight, None]
    dtype = linear.bias.dtype
    wide = torch.promote_types(dtype, torch.float32)
    if dense_grad is not None:
        return [weight, dense_grad.sum(0, dtype=wide).to(dtype)]
    return [weight, column_sums(grad_output, dtype)]
