"""The first half of a block: hidden state -> norm -> queries, keys and values.

Saved for backward: the hidden state and the normed one in blocks, and the norm's row statistics. Queries, keys and
values leave it in 16 (or 32) bits, straight out of the accumulators: the attention computes with them.
"""

from __future__ import annotations

from typing import Any

import torch
from planish_kernels.block_matmul import block_matmul
from planish_kernels.block_norm import block_norm, block_norm_backward, row_statistics
from torch import Tensor
from torch.autograd.function import once_differentiable

from planish_jetfire.flow.arithmetic import dense, dense_input_grad, input_grad, logical
from planish_jetfire.flow.block_state import BlockState
from planish_jetfire.flow.parameters import linear_grads, linears_of
from planish_jetfire.flow.saving import no_autocast, save, saved


class Projections(torch.autograd.Function):
    """``hidden`` [tokens, features] -> one [tokens, out] for each projection.

    Arguments: hidden, the block's state, the dtype to compute in, the norm's weight and bias, then weight and bias of
    each projection. A post-norm block has no norm here.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        state: BlockState,
        dtype: torch.dtype,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """See the class."""
        structure = state.structure
        linears = linears_of(parameters, state.is_transposed(structure.projections))
        ctx.state, ctx.dtype, ctx.hidden_dtype = state, dtype, hidden.dtype
        with no_autocast(hidden):
            quantized = state.arithmetic.nearest(hidden)
            statistics, normed, kept = None, quantized, [quantized]
            if structure.is_pre_norm:
                kind = structure.norm_kinds[0]
                statistics = row_statistics(quantized, kind.kind, kind.eps)
                normed = block_norm(quantized, statistics, norm_weight, norm_bias)
                kept.append(normed)
            save(ctx, kept, (statistics, norm_weight, norm_bias, *parameters))
            weights = state.projection_codes.of(logical(linears), hidden.dtype)
            return tuple(
                block_matmul(normed, weight.T, linear.bias, dtype)
                for weight, linear in zip(weights, linears, strict=True)
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the arguments."""
        state: BlockState = ctx.state
        structure, arithmetic = state.structure, state.arithmetic
        kept, (statistics, norm_weight, norm_bias, *parameters) = saved(ctx)
        linears = linears_of(parameters, state.is_transposed(structure.projections))
        draws, grads = state.take_draws(), tuple(grad.contiguous() for grad in grads)
        grad_norm_weight = grad_norm_bias = None
        with no_autocast(grads[0]):
            quantized = [arithmetic.gradient(grad, draws[i]) for i, grad in enumerate(grads)]
            own: list[Tensor | None] = []
            for i, (linear, grad) in enumerate(zip(linears, grads, strict=True)):
                own += linear_grads(linear, quantized[i], kept[-1], grad, ctx.needs_input_grad[5 + 2 * i : 7 + 2 * i])
            if structure.is_pre_norm:
                at_norm = input_grad(arithmetic, quantized, linears, state.projection_codes, draws[3])
                found = block_norm_backward(
                    at_norm, kept[0], statistics, norm_weight, kind=structure.norm_kinds[0].kind,
                    rounding=arithmetic.rounding, seed=draws[4].seed, offset=draws[4].offset,
                )  # fmt: skip
                grad_hidden = dense(found.input).to(ctx.hidden_dtype)
                grad_norm_weight = None if norm_weight is None else found.weight.to(norm_weight.dtype)
                grad_norm_bias = None if norm_bias is None else found.bias.to(norm_bias.dtype)
            else:
                grad_hidden = dense_input_grad(quantized, linears, state.projection_codes, ctx.hidden_dtype)
        return grad_hidden, None, None, grad_norm_weight, grad_norm_bias, *own
