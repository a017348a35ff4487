"""The operators ``block_activation`` and ``block_activation_backward``."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from planish_kernels.block_activation.reference import (
    block_activation_backward_reference,
    block_activation_reference,
)
from planish_kernels.block_quantize.op import ROUNDINGS
from planish_kernels.formats.block_scaled import BlockScaled, require_row_major
from planish_kernels.gated_activation.op import ACTIVATIONS
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.capability import cuda_capability, triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

block_activation_op = Op("block_activation", "GELU, SiLU, SwiGLU and GEGLU of block-scaled operands, quantized")
block_activation_backward_op = Op("block_activation_backward", "their gradients, quantized, the activation recomputed")


def triton_computes_on(codes: Tensor) -> Support:
    """Whether Triton kernels handle codes of this dtype on this device."""
    capability = cuda_capability(codes.device)
    if codes.dtype is torch.float8_e4m3fn and capability is not None and capability < (8, 9):
        return no(f"float8 needs compute capability 8.9, this GPU has {capability}: take int8")
    return triton_runs_on(codes.device)


def _supports(codes: Tensor, *_: object) -> Support:
    return triton_computes_on(codes)


@block_activation_op.implement("triton", supports=_supports)
def _(
    x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None, up_scales: Tensor | None, block: int, activation: str
) -> tuple[Tensor, Tensor]:
    from planish_kernels.block_activation.triton import block_activation_triton

    return block_activation_triton(x_codes, x_scales, up_codes, up_scales, block, activation)


@block_activation_op.implement("reference")
def _(
    x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None, up_scales: Tensor | None, block: int, activation: str
) -> tuple[Tensor, Tensor]:
    return block_activation_reference(x_codes, x_scales, up_codes, up_scales, block, activation)


@block_activation_backward_op.implement("triton", supports=_supports)
def _(
    grad_codes: Tensor, grad_scales: Tensor, x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None,
    up_scales: Tensor | None, block: int, activation: str, side_by_side: bool, stochastic: bool, seed: Tensor,
    offset: Tensor,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    from planish_kernels.block_activation.triton import block_activation_backward_triton

    return block_activation_backward_triton(
        grad_codes, grad_scales, x_codes, x_scales, up_codes, up_scales, block, activation, side_by_side, stochastic,
        seed, offset,
    )  # fmt: skip


@block_activation_backward_op.implement("reference")
def _(
    grad_codes: Tensor, grad_scales: Tensor, x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None,
    up_scales: Tensor | None, block: int, activation: str, side_by_side: bool, stochastic: bool, seed: Tensor,
    offset: Tensor,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    return block_activation_backward_reference(
        grad_codes, grad_scales, x_codes, x_scales, up_codes, up_scales, block, activation, side_by_side, stochastic,
        seed, offset,
    )  # fmt: skip


@torch.library.custom_op("planish::block_activation", mutates_args=())
def _block_activation(
    x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None, up_scales: Tensor | None, block: int, activation: str,
    impl: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return block_activation_op.dispatch(impl, x_codes, x_scales, up_codes, up_scales, block, activation)


@_block_activation.register_fake
def _(
    x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None, up_scales: Tensor | None, block: int, activation: str,
    impl: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x_codes.new_empty(x_codes.shape), x_scales.new_empty(x_scales.shape)


@torch.library.custom_op("planish::block_activation_backward", mutates_args=())
def _block_activation_backward(
    grad_codes: Tensor, grad_scales: Tensor, x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None,
    up_scales: Tensor | None, block: int, activation: str, side_by_side: bool, stochastic: bool, seed: Tensor,
    offset: Tensor, impl: str,
) -> list[Tensor]:  # fmt: skip
    found = block_activation_backward_op.dispatch(
        impl, grad_codes, grad_scales, x_codes, x_scales, up_codes, up_scales, block, activation, side_by_side,
        stochastic, seed, offset,
    )  # fmt: skip
    return [tensor for tensor in found if tensor is not None]


@_block_activation_backward.register_fake
def _(
    grad_codes: Tensor, grad_scales: Tensor, x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None,
    up_scales: Tensor | None, block: int, activation: str, side_by_side: bool, stochastic: bool, seed: Tensor,
    offset: Tensor, impl: str,
) -> list[Tensor]:  # fmt: skip
    one = [grad_codes, grad_scales]
    if side_by_side:
        return [tensor.new_empty((tensor.shape[0], 2 * tensor.shape[1])) for tensor in one]
    return [torch.empty_like(tensor) for tensor in (one if up_codes is None else one * 2)]


def _check_activation(activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}, expected one of {', '.join(map(repr, ACTIVATIONS))}")


def block_activation(
    x: BlockScaled, up: BlockScaled | None = None, *, activation: str = "gelu", impl: str = "auto"
) -> BlockScaled:
    """``act(x)``, or gated ``act(x) * up``, of quantized operands, quantized to nearest: one pass, a byte an entry.

    Computed in float32. Not differentiable: :func:`block_activation_backward` is its gradient.

    Args:
        x: ``BlockInt8`` or ``BlockFloat8`` ``[rows, cols]``.
        up: the other factor, of the same format, block and shape; None for a plain activation.
        activation: ``"gelu"`` (exact), ``"gelu_tanh"`` or ``"silu"``.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``[rows, cols]`` in the format and block of ``x``.

    Raises:
        ValueError, TypeError: operands that do not fit each other.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Jetfire (arXiv 2403.12422), section 6, algorithm 2.
    """
    _check_activation(activation)
    require_row_major("x", x)
    if up is not None:
        require_row_major("up", up, x)
    codes, scales = _block_activation(
        x.codes, x.scales, None if up is None else up.codes, None if up is None else up.scales, x.block, activation,
        impl,
    )  # fmt: skip
    return type(x)(codes, scales, x.block, x.dtype)


@overload
def block_activation_backward(
    grad_output: BlockScaled,
    x: BlockScaled,
    up: BlockScaled | None = None,
    *,
    activation: str = "gelu",
    side_by_side: Literal[False] = False,
    rounding: str = "stochastic",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    impl: str = "auto",
) -> tuple[BlockScaled, BlockScaled | None]: ...


@overload
def block_activation_backward(
    grad_output: BlockScaled,
    x: BlockScaled,
    up: BlockScaled | None = None,
    *,
    activation: str = "gelu",
    side_by_side: Literal[True],
    rounding: str = "stochastic",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    impl: str = "auto",
) -> BlockScaled: ...


def block_activation_backward(
    grad_output: BlockScaled,
    x: BlockScaled,
    up: BlockScaled | None = None,
    *,
    activation: str = "gelu",
    side_by_side: bool = False,
    rounding: str = "stochastic",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    impl: str = "auto",
) -> BlockScaled | tuple[BlockScaled, BlockScaled | None]:
    """The gradients of :func:`block_activation`, quantized; the activation is recomputed from ``x``.

    Args:
        grad_output: quantized gradient of the output, of the format, block and shape of ``x``.
        x: what the forward pass took.
        up: likewise.
        activation: as there.
        side_by_side: whether both gradients are to be one matrix ``[rows, 2 * cols]``, that of ``x`` first, as one
            matmul takes them; only with ``up``, and where blocks divide the columns.
        rounding: of the gradients; ``"stochastic"`` keeps them unbiased.
        seed: as for ``block_quantize``.
        offset: likewise. The gradient of ``up`` is drawn under ``offset + 1``: step by 2.
        impl: a backend by name, or ``"auto"``.

    Returns:
        The gradient of ``x``, and that of ``up`` or None; one matrix of both if they are to be side by side.

    Raises:
        ValueError, TypeError: operands that do not fit each other.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    _check_activation(activation)
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}, expected one of {', '.join(map(repr, ROUNDINGS))}")
    require_row_major("x", x)
    require_row_major("grad_output", grad_output, x)
    if up is not None:
        require_row_major("up", up, x)
    if side_by_side and (up is None or x.shape[1] % x.block):
        given = "there is no up" if up is None else f"x has {x.shape[1]} columns in blocks of {x.block}"
        raise ValueError(f"side_by_side takes two gradients of whole blocks, {given}: ask for them one by one")
    device = x.codes.device
    seed, offset = as_scalar("seed", seed, device), as_scalar("offset", offset, device)
    found = _block_activation_backward(
        grad_output.codes, grad_output.scales, x.codes, x.scales, None if up is None else up.codes,
        None if up is None else up.scales, x.block, activation, side_by_side, rounding == "stochastic", seed,
        offset, impl,
    )  # fmt: skip
    gradients = [type(x)(codes, scales, x.block, grad_output.dtype) for codes, scales in zip(found[::2], found[1::2])]
    if side_by_side:
        return gradients[0]
    return gradients[0], gradients[1] if len(gradients) == 2 else None
