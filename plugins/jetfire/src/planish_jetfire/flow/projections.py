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
from planish_jetfire.flow.parameters import grads_of_all, linears_of
from planish_jetfire.flow.saving import no_autocast, save, saved
from planish_jetfire.weight_codes import stacks


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
        draws = state.take_draws()
        grad_norm_weight = grad_norm_bias = None
        with no_autocast(grads[0]):
            if len(grads) > 1 and stacks([grad.shape[1] for grad in grads], arithmetic.block):
                # Joined as codes: a dense matrix of all would have the compiler write gradients of queries and keys
                # across its rows, at a sixth of the bandwidth. The other parts are drawn under the offsets 1 and 2.
                quantized = [arithmetic.gradients(grads, draws[0])]
            else:
                quantized = [arithmetic.gradient(grad.contiguous(), draws[i]) for i, grad in enumerate(grads)]
            own = grads_of_all(linears, quantized, kept[-1], grads, ctx.needs_input_grad[5:])
            if structure.is_pre_norm:
                at_norm = input_grad(arithmetic, quantized, linears, state.projection_codes, draws[3])
                found = block_norm_backward(
                    at_norm, kept[0], statistics, norm_weight, kind=structure.norm_kinds[0].kind,
                    has_bias=norm_bias is not None, rounding=arithmetic.rounding, seed=draws[4].seed,
                    offset=draws[4].offset,
                )  # fmt: skip
                grad_hidden = dense(found.input).to(ctx.hidden_dtype)
                grad_norm_weight, grad_norm_bias = found.like(norm_weight, norm_bias)
            else:
                grad_hidden = dense_input_grad(quantized, linears, state.projection_codes, ctx.hidden_dtype)
        return grad_hidden, None, None, grad_norm_weight, grad_norm_bias, *own
