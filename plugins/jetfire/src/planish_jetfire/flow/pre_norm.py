"""The second half of a pre-norm block: ``h = x + out(attended)``, then ``h + feed_forward(norm(h))``.

Saved for backward, all in blocks: what the attention gave, the sum, the normed sum, and the inputs of the matmuls and
of the activation inside the feed-forward network; and the norm's row statistics. The residual stream itself passes
through in its own precision and is saved nowhere.
"""

from __future__ import annotations

from typing import Any

import torch
from planish_kernels.block_add import block_add
from planish_kernels.block_matmul import block_matmul, block_matmul_quantized
from planish_kernels.block_norm import block_norm, block_norm_backward
from torch import Tensor
from torch.autograd.function import once_differentiable

from planish_jetfire.flow.arithmetic import dense, logical
from planish_jetfire.flow.block_state import BlockState
from planish_jetfire.flow.feed_forward import feed_forward, feed_forward_backward
from planish_jetfire.flow.parameters import linear_grads, linears_of
from planish_jetfire.flow.saving import no_autocast, save, saved


class PreNormRest(torch.autograd.Function):
    """``attended`` [tokens, heads * head_dim] and ``hidden`` [tokens, features] -> the block's output like ``hidden``.

    Arguments: attended, hidden, the block's state, the norm's weight and bias, then weight and bias of the output
    projection and of the feed-forward linears.
    """

    @staticmethod
    def forward(
        ctx: Any,
        attended: Tensor,
        hidden: Tensor,
        state: BlockState,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *parameters: Tensor | None,
    ) -> Tensor:
        """See the class."""
        structure, arithmetic = state.structure, state.arithmetic
        out, *network = linears_of(parameters, state.is_transposed(structure.linears[len(structure.projections) :]))
        ctx.state, ctx.attended_dtype, ctx.hidden_dtype = state, attended.dtype, hidden.dtype
        with no_autocast(hidden):
            residual = hidden if state.keeps_residual else dense(arithmetic.nearest(hidden))
            quantized = arithmetic.nearest(attended)
            (weight,) = state.out_codes.of(logical([out]), attended.dtype)
            branch = block_matmul_quantized(quantized, weight.T, out.bias)
            kind = structure.norm_kinds[1]
            half = block_add(residual, branch, kind=kind.kind, eps=kind.eps)
            normed = block_norm(half.quantized, half.statistics, norm_weight, norm_bias)
            output, kept = feed_forward(state, normed, network)
            stream = half.total if state.keeps_residual else dense(half.quantized)
            save(
                ctx, (quantized, half.quantized, normed, *kept), (half.statistics, norm_weight, norm_bias, *parameters)
            )
            total = block_add(stream, output)
            return total.total if state.keeps_residual else dense(total.quantized)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the arguments."""
        state: BlockState = ctx.state
        structure, arithmetic = state.structure, state.arithmetic
        (attended, half, normed, *kept), (statistics, norm_weight, norm_bias, *parameters) = saved(ctx)
        out, *network = linears_of(parameters, state.is_transposed(structure.linears[len(structure.projections) :]))
        draws, needed, grad = state.take_draws(), ctx.needs_input_grad, grad.contiguous()
        with no_autocast(grad):
            quantized = arithmetic.gradient(grad, draws[5])
            stream = grad if state.keeps_residual else dense(quantized)
            at_normed, own = feed_forward_backward(state, quantized, stream, normed, kept, network, needed[7:], draws)
            found = block_norm_backward(
                at_normed, half, statistics, norm_weight, kind=structure.norm_kinds[1].kind,
                has_bias=norm_bias is not None, rounding=arithmetic.rounding, seed=draws[12].seed,
                offset=draws[12].offset,
            )  # fmt: skip
            at_half = block_add(
                stream, found.input, rounding=arithmetic.rounding, seed=draws[13].seed, offset=draws[13].offset
            )
            stream = at_half.total if state.keeps_residual else dense(at_half.quantized)
            first = linear_grads(out, at_half.quantized, attended, stream, needed[5:7])
            (weight,) = state.out_codes.of(logical([out]), at_half.quantized.dtype)
            grad_attended = block_matmul(at_half.quantized, weight, out_dtype=ctx.attended_dtype)
            grad_norm_weight, grad_norm_bias = found.like(norm_weight, norm_bias)
        return grad_attended, stream.to(ctx.hidden_dtype), None, grad_norm_weight, grad_norm_bias, *first, *own
