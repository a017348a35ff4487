"""The feed-forward network inside a block, quantized in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from planish_kernels.block_activation import block_activation, block_activation_backward
from planish_kernels.block_matmul import block_matmul_quantized
from planish_kernels.formats.block_scaled import BlockScaled
from torch import Tensor

from planish_jetfire.flow.arithmetic import Draw, Draws, Linear, input_grad, logical
from planish_jetfire.flow.block_state import BlockState
from planish_jetfire.flow.parameters import grads_of_all, linear_grads


class FeedForwardResult(NamedTuple):
    """What the network gives, and what its backward pass takes."""

    output: BlockScaled
    saved: tuple[BlockScaled, ...]


def feed_forward(state: BlockState, normed: BlockScaled, linears: Sequence[Linear]) -> FeedForwardResult:
    """``contract(act(expand(normed)))``, or gated; saved are the activation's inputs, and what it gives."""
    *expand, contract = linears
    weights = state.expand_codes.of(logical(expand), normed.dtype)
    widened = tuple(
        block_matmul_quantized(normed, weight.T, linear.bias) for weight, linear in zip(weights, expand, strict=True)
    )
    activated = _activated(state, widened)
    (weight,) = state.contract_codes.of(logical([contract]), normed.dtype)
    output = block_matmul_quantized(activated, weight.T, contract.bias)
    return FeedForwardResult(output, widened if state.recomputes_activation else (*widened, activated))


def feed_forward_backward(
    state: BlockState,
    quantized_grad: BlockScaled,
    dense_grad: Tensor | None,
    normed: BlockScaled,
    kept: Sequence[BlockScaled],
    linears: Sequence[Linear],
    needed: Sequence[bool],
    draws: Draws,
) -> tuple[BlockScaled, list[Tensor | None]]:
    """The gradient of ``normed``, and of weight and bias of each linear.

    Args:
        state: The block's state.
        quantized_grad: Gradient of the output.
        dense_grad: The same before it was quantized, if there is such a thing.
        normed: What the network was given.
        kept: What the forward pass saved.
        linears: Its linears.
        needed: For weight and bias of each whether they need a gradient.
        draws: Draws 8 to 11 are used.
    """
    *expand, contract = linears
    widened = kept[: len(expand)]
    activated = _activated(state, widened) if state.recomputes_activation else kept[-1]
    arithmetic = state.arithmetic
    last = linear_grads(contract, quantized_grad, activated, dense_grad, needed[-2:])
    at_output = input_grad(arithmetic, [quantized_grad], [contract], state.contract_codes, draws[8])
    # The second of its two gradients is drawn under the next offset, 10.
    grads = _activation_grads(state, at_output, widened, draws[9])
    own = grads_of_all(expand, grads, normed, [None] * len(expand), needed[:-2])
    return input_grad(arithmetic, grads, expand, state.expand_codes, draws[11]), own + last


def _activation_grads(
    state: BlockState, at_output: BlockScaled, widened: Sequence[BlockScaled], draw: Draw
) -> list[BlockScaled]:
    """The gradients of the activation's inputs: one each, or one matrix of both."""
    activation, rounding = state.structure.activation, state.arithmetic.rounding
    if _is_one(widened):
        both = block_activation_backward(
            at_output, *widened, activation=activation, side_by_side=True, rounding=rounding, seed=draw.seed,
            offset=draw.offset,
        )  # fmt: skip
        return [both]
    apart = block_activation_backward(
        at_output, *widened, activation=activation, rounding=rounding, seed=draw.seed, offset=draw.offset
    )
    return [grad for grad in apart if grad is not None]


def _is_one(widened: Sequence[BlockScaled]) -> bool:
    """Whether the gradients of a gated activation's inputs can be one matrix."""
    return len(widened) == 2 and widened[0].shape[1] % widened[0].block == 0


def _activated(state: BlockState, widened: Sequence[BlockScaled]) -> BlockScaled:
    return block_activation(*widened, activation=state.structure.activation)
