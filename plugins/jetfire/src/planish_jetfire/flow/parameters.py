"""Parameters of linear layers as autograd functions are handed them, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from planish_kernels.block_matmul import block_matmul
from planish_kernels.formats.block_scaled import BlockScaled
from torch import Tensor

from planish_jetfire.flow.arithmetic import Linear, column_sums, columns


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


def grads_of_all(
    linears: Sequence[Linear],
    grad_outputs: Sequence[BlockScaled],
    input: BlockScaled,
    dense_grads: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of weight and bias of each of several linears that multiply one input.

    Args:
        linears: The layers.
        grad_outputs: Gradients of their outputs: one each, or one of all side by side. That takes one matmul, of which
            weights that are stored [out, in] get rows.
        input: Their input.
        dense_grads: As for :func:`linear_grads`, for each.
        needed: Whether weight and bias of each need theirs.
    """
    outs = [linear.logical.shape[0] for linear in linears]
    is_one = len(grad_outputs) == 1 and len(linears) > 1
    weights: list[Tensor | None] = [None] * len(linears)
    if is_one and all(needed[::2]) and not any(linear.is_transposed for linear in linears) and _are_alike(linears):
        whole = block_matmul(grad_outputs[0].T, input, out_dtype=linears[0].weight.dtype)
        weights = list(torch.split(whole, outs))
        needed = [flag and number % 2 == 1 for number, flag in enumerate(needed)]
    if is_one:
        starts = [sum(outs[:i]) for i in range(len(outs))]
        grad_outputs = [columns(grad_outputs[0], start, count) for start, count in zip(starts, outs, strict=True)]
    found: list[Tensor | None] = []
    for i, (linear, grad, dense_grad) in enumerate(zip(linears, grad_outputs, dense_grads, strict=True)):
        weight, bias = linear_grads(linear, grad, input, dense_grad, needed[2 * i : 2 * i + 2])
        found += [weight if weights[i] is None else weights[i], bias]
    return found


def _are_alike(linears: Sequence[Linear]) -> bool:
    """Whether all weights have one dtype: one matmul writes one, and a wider weight would lose digits to it."""
    return len({linear.weight.dtype for linear in linears}) == 1
