"""The operators ``row_statistics``, ``block_norm`` and ``block_norm_backward``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from planish_kernels.block_activation.op import triton_computes_on
from planish_kernels.block_norm.reference import (
    block_norm_backward_reference,
    block_norm_reference,
    row_statistics_reference,
)
from planish_kernels.block_quantize.op import ROUNDINGS
from planish_kernels.formats.block_scaled import BlockScaled, require_row_major
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support

KINDS = ("layer", "rms")

row_statistics_op = Op("row_statistics", "mean and reciprocal deviation of each row of a block-scaled operand")
block_norm_op = Op("block_norm", "LayerNorm and RMSNorm of block-scaled operands, quantized")
block_norm_backward_op = Op("block_norm_backward", "their gradients: quantized for the input, float32 for the weights")


def _supports(codes: Tensor, *_: object) -> Support:
    return triton_computes_on(codes)


@row_statistics_op.implement("triton", supports=_supports)
def _(codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float) -> Tensor:
    from planish_kernels.block_norm.triton import row_statistics_triton

    return row_statistics_triton(codes, scales, block, is_rms, eps)


@row_statistics_op.implement("reference")
def _(codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float) -> Tensor:
    return row_statistics_reference(codes, scales, block, is_rms, eps)


@block_norm_op.implement("triton", supports=_supports)
def _(
    codes: Tensor, scales: Tensor, block: int, statistics: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    from planish_kernels.block_norm.triton import block_norm_triton

    return block_norm_triton(codes, scales, block, statistics, weight, bias)


@block_norm_op.implement("reference")
def _(
    codes: Tensor, scales: Tensor, block: int, statistics: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    return block_norm_reference(codes, scales, block, statistics, weight, bias)


@block_norm_backward_op.implement("triton", supports=_supports)
def _(
    grad_codes: Tensor, grad_scales: Tensor, codes: Tensor, scales: Tensor, block: int, statistics: Tensor,
    weight: Tensor | None, has_bias: bool, is_rms: bool, stochastic: bool, seed: Tensor, offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from planish_kernels.block_norm.triton import block_norm_backward_triton

    return block_norm_backward_triton(
        grad_codes, grad_scales, codes, scales, block, statistics, weight, has_bias, is_rms, stochastic, seed, offset
    )


@block_norm_backward_op.implement("reference")
def _(
    grad_codes: Tensor, grad_scales: Tensor, codes: Tensor, scales: Tensor, block: int, statistics: Tensor,
    weight: Tensor | None, has_bias: bool, is_rms: bool, stochastic: bool, seed: Tensor, offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return block_norm_backward_reference(
        grad_codes, grad_scales, codes, scales, block, statistics, weight, has_bias, is_rms, stochastic, seed, offset
    )


@torch.library.custom_op("planish::row_statistics", mutates_args=())
def _row_statistics(codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float, impl: str) -> Tensor:
    return row_statistics_op.dispatch(impl, codes, scales, block, is_rms, eps)


@_row_statistics.register_fake
def _(codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float, impl: str) -> Tensor:
    return scales.new_empty((2, codes.shape[0]))


@torch.library.custom_op("planish::block_norm", mutates_args=())
def _block_norm(
    codes: Tensor, scales: Tensor, block: int, statistics: Tensor, weight: Tensor | None, bias: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return block_norm_op.dispatch(impl, codes, scales, block, statistics, weight, bias)


@_block_norm.register_fake
def _(
    codes: Tensor, scales: Tensor, block: int, statistics: Tensor, weight: Tensor | None, bias: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return codes.new_empty(codes.shape), scales.new_empty(scales.shape)


@torch.library.custom_op("planish::block_norm_backward", mutates_args=())
def _block_norm_backward(
    grad_codes: Tensor, grad_scales: Tensor, codes: Tensor, scales: Tensor, block: int, statistics: Tensor,
    weight: Tensor | None, has_bias: bool, is_rms: bool, stochastic: bool, seed: Tensor, offset: Tensor, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return block_norm_backward_op.dispatch(
        impl, grad_codes, grad_scales, codes, scales, block, statistics, weight, has_bias, is_rms, stochastic, seed,
        offset,
    )  # fmt: skip


@_block_norm_backward.register_fake
def _(
    grad_codes: Tensor, grad_scales: Tensor, codes: Tensor, scales: Tensor, block: int, statistics: Tensor,
    weight: Tensor | None, has_bias: bool, is_rms: bool, stochastic: bool, seed: Tensor, offset: Tensor, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    sums = scales.new_empty((codes.shape[1],)), scales.new_empty((codes.shape[1] if has_bias else 0,))
    return grad_codes.new_empty(codes.shape), scales.new_empty(scales.shape), *sums


class BlockNormGradients(NamedTuple):
    """What the backward pass of a norm gives: the input's gradient quantized, the weights' in float32 ``[cols]``."""

    input: BlockScaled
    weight: Tensor
    bias: Tensor | None

    def like(self, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Those of the parameters that the norm has, in their dtypes; None for those that it has not."""
        pairs = (self.weight, weight), (self.bias, bias)
        of_weight, of_bias = (None if g is None or p is None else g.to(p.dtype) for g, p in pairs)
        return of_weight, of_bias


def row_statistics(x: BlockScaled, kind: str = "layer", eps: float = 1e-5, *, impl: str = "auto") -> Tensor:
    """Mean and reciprocal deviation of each row of what ``x`` decodes to.

    In two passes over the codes, so that a large mean cancels nothing; the deviation is that of the population, and
    ``eps`` is added to the variance, as in ``torch.nn.functional.layer_norm``. A constant row has ``eps ** -0.5``.

    Args:
        x: ``BlockInt8`` or ``BlockFloat8`` ``[rows, cols]``.
        kind: ``"layer"``, or ``"rms"``: the mean counts as zero.
        eps: as in the norm.
        impl: a backend by name, or ``"auto"``.

    Returns:
        float32 ``[2, rows]``: means, reciprocal deviations.

    Raises:
        ValueError, TypeError: arguments that do not fit.
    """
    _check_kind(kind)
    require_row_major("x", x)
    return _row_statistics(x.codes, x.scales, x.block, kind == "rms", eps, impl)


def block_norm(
    x: BlockScaled, statistics: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, impl: str = "auto"
) -> BlockScaled:
    """``(x - mean) * rstd * weight + bias``, quantized to nearest: one elementwise pass, a byte an entry.

    Not differentiable: :func:`block_norm_backward` is its gradient.

    Args:
        x: ``BlockInt8`` or ``BlockFloat8`` ``[rows, cols]``.
        statistics: float32 ``[2, rows]``, from :func:`row_statistics` or from ``block_add``.
        weight: ``[cols]``, or None.
        bias: ``[cols]``, or None.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``[rows, cols]`` in the format and block of ``x``.

    Raises:
        ValueError, TypeError: arguments that do not fit each other.

    Source: Jetfire (arXiv 2403.12422), section 6.
    """
    _check(x, statistics, weight, bias)
    codes, scales = _block_norm(x.codes, x.scales, x.block, statistics, weight, bias, impl)
    return type(x)(codes, scales, x.block, x.dtype)


def block_norm_backward(
    grad_output: BlockScaled,
    x: BlockScaled,
    statistics: Tensor,
    weight: Tensor | None = None,
    *,
    kind: str = "layer",
    has_bias: bool = True,
    rounding: str = "stochastic",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    impl: str = "auto",
) -> BlockNormGradients:
    """The gradients of :func:`block_norm`, the statistics' dependence on ``x`` included.

    ``dx = rstd * (w dy - mean(w dy) - xhat * mean(w dy xhat))`` with means over the whole row; the second term is
    absent for ``"rms"``.

    Args:
        grad_output: quantized gradient of the output, of the format, block and shape of ``x``.
        x: what the forward pass took.
        statistics: likewise.
        weight: likewise.
        kind: ``"layer"`` or ``"rms"``.
        has_bias: whether the gradient of the bias is asked for; else it is None, and costs nothing.
        rounding: of the gradient of ``x``; ``"stochastic"`` keeps it unbiased.
        seed: as for ``block_quantize``.
        offset: likewise.
        impl: a backend by name, or ``"auto"``.

    Raises:
        ValueError, TypeError: arguments that do not fit each other.
    """
    _check_kind(kind)
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}, expected one of {', '.join(map(repr, ROUNDINGS))}")
    _check(x, statistics, weight, None)
    require_row_major("grad_output", grad_output, x)
    device = x.codes.device
    seed, offset = as_scalar("seed", seed, device), as_scalar("offset", offset, device)
    codes, scales, grad_weight, grad_bias = _block_norm_backward(
        grad_output.codes, grad_output.scales, x.codes, x.scales, x.block, statistics, weight, has_bias,
        kind == "rms", rounding == "stochastic", seed, offset, impl,
    )  # fmt: skip
    gradient = type(x)(codes, scales, x.block, grad_output.dtype)
    return BlockNormGradients(gradient, grad_weight, grad_bias if has_bias else None)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}, expected one of {', '.join(map(repr, KINDS))}")


def _check(x: BlockScaled, statistics: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    require_row_major("x", x)
    rows, cols = x.shape
    if tuple(statistics.shape) != (2, rows) or statistics.dtype is not torch.float32:
        raise ValueError(
            f"statistics are {statistics.dtype} {tuple(statistics.shape)}, expected float32 (2, {rows}): "
            f"row_statistics(x) gives them"
        )
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None and tuple(vector.shape) != (cols,):
            raise ValueError(f"{name} has shape {tuple(vector.shape)}, expected ({cols},)")
