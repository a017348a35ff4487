"""The second half of a post-norm block: ``h = norm(x + out(attended))``, then ``norm(h + feed_forward(h))``.

As in a pre-norm block, but both norms stand on the residual stream. With ``residual="dual"`` they are computed on it in
its own precision, and their gradients on the saved copies in blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from planish_kernels.block_add import ResidualSum, block_add
from planish_kernels.block_matmul import block_matmul, block_matmul_quantized
from planish_kernels.block_norm import block_norm, block_norm_backward
from planish_kernels.formats.block_scaled import BlockScaled
from torch import Tensor
from torch.autograd.function import once_differentiable

from planish_jetfire.flow.arithmetic import dense, logical
from planish_jetfire.flow.block_state import BlockState
from planish_jetfire.flow.feed_forward import feed_forward, feed_forward_backward
from planish_jetfire.flow.parameters import linear_grads, linears_of
from planish_jetfire.flow.saving import no_autocast, save, saved
from planish_jetfire.structure.norm import apply_norm


class PostNormRest(torch.autograd.Function):
    """``attended`` [tokens, heads * head_dim] and ``hidden`` [tokens, features] -> the block's output in ``dtype``.

    Arguments: attended, hidden, the block's state, the dtype of the output, weight and bias of both norms, then weight
    and bias of the output projection and of the feed-forward linears.
    """

    @staticmethod
    def forward(
        ctx: Any, attended: Tensor, hidden: Tensor, state: BlockState, dtype: torch.dtype, *parameters: Tensor | None
    ) -> Tensor:
        """See the class."""
        structure, arithmetic = state.structure, state.arithmetic
        norms, flat = parameters[:4], parameters[4:]
        out, *network = linears_of(flat, state.is_transposed(structure.linears[len(structure.projections) :]))
        ctx.state, ctx.attended_dtype, ctx.hidden_dtype = state, attended.dtype, hidden.dtype
        first, second = structure.norm_kinds
        with no_autocast(hidden):
            residual = hidden if state.keeps_residual else dense(arithmetic.nearest(hidden))
            quantized = arithmetic.nearest(attended)
            (weight,) = state.out_codes.of(logical([out]), attended.dtype)
            branch = block_matmul_quantized(quantized, weight.T, out.bias)
            half = block_add(residual, branch, kind=first.kind, eps=first.eps)
            normed, stream = _normed(state, half, 0, norms[0], norms[1])
            output, kept = feed_forward(state, normed, network)
            total = block_add(stream, output, kind=second.kind, eps=second.eps)
            _, result = _normed(state, total, 1, norms[2], norms[3])
            save(
                ctx,
                (quantized, half.quantized, normed, total.quantized, *kept),
                (half.statistics, total.statistics, *parameters),
            )
            return result.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the arguments."""
        state: BlockState = ctx.state
        structure, arithmetic = state.structure, state.arithmetic
        (attended, half, normed, total, *kept), (half_statistics, statistics, *parameters) = saved(ctx)
        norms, flat = parameters[:4], parameters[4:]
        out, *network = linears_of(flat, state.is_transposed(structure.linears[len(structure.projections) :]))
        draws, needed, grad = state.take_draws(), ctx.needs_input_grad, grad.contiguous()
        with no_autocast(grad):
            last = block_norm_backward(
                arithmetic.gradient(grad, draws[5]), total, statistics, norms[2], kind=structure.norm_kinds[1].kind,
                has_bias=norms[3] is not None, rounding=arithmetic.rounding, seed=draws[6].seed,
                offset=draws[6].offset,
            )  # fmt: skip
            at_normed, own = feed_forward_backward(state, last.input, None, normed, kept, network, needed[10:], draws)
            joined = block_add(
                dense(last.input), at_normed, rounding=arithmetic.rounding, seed=draws[12].seed,
                offset=draws[12].offset,
            )  # fmt: skip
            first = block_norm_backward(
                joined.quantized, half, half_statistics, norms[0], kind=structure.norm_kinds[0].kind,
                has_bias=norms[1] is not None, rounding=arithmetic.rounding, seed=draws[13].seed,
                offset=draws[13].offset,
            )  # fmt: skip
            front = linear_grads(out, first.input, attended, None, needed[8:10])
            (weight,) = state.out_codes.of(logical([out]), first.input.dtype)
            grad_attended = block_matmul(first.input, weight, out_dtype=ctx.attended_dtype)
            grad_hidden = dense(first.input).to(ctx.hidden_dtype)
            grad_norms = *first.like(*norms[:2]), *last.like(*norms[2:])
        return grad_attended, grad_hidden, None, None, *grad_norms, *front, *own


def _normed(
    state: BlockState, total: ResidualSum, number: int, weight: Tensor | None, bias: Tensor | None
) -> tuple[BlockScaled, Tensor]:
    """The norm of a sum, in blocks and as the residual stream goes on."""
    if not state.keeps_residual:
        normed = block_norm(total.quantized, total.statistics, weight, bias)
        return normed, dense(normed)
    kind = state.structure.norm_kinds[number]
    wide = torch.promote_types(total.total.dtype, torch.float32)
    vectors = [None if vector is None else vector.to(wide) for vector in (weight, bias)]
    stream = apply_norm(total.total.to(wide), kind, *vectors).to(total.total.dtype)
    return state.arithmetic.nearest(stream), stream
