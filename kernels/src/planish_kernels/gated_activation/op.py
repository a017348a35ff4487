"""The operators ``swiglu`` and ``geglu``: gated activations with recomputation in the backward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from planish_kernels.gated_activation.reference import (
    gated_activation_backward_reference,
    gated_activation_reference,
)
from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

gated_activation_op = Op("gated_activation", "SwiGLU and GEGLU: act(gate) * x, for any strides")
gated_activation_backward_op = Op("gated_activation_backward", "both gradients of it, the activation recomputed")


def _triton_supports(first: Tensor, *_: Tensor | str) -> Support:
    if first.dtype not in KERNEL_DTYPES:
        return no(f"it computes in float32, the input is {first.dtype}: use float32, float16 or bfloat16")
    return triton_runs_on(first.device)


@gated_activation_op.implement("triton", supports=_triton_supports)
def _(x: Tensor, gate: Tensor, out: Tensor, activation: str) -> None:
    from planish_kernels.gated_activation.triton import gated_activation_triton

    gated_activation_triton(x, gate, out, activation)


@gated_activation_op.implement("reference")
def _(x: Tensor, gate: Tensor, out: Tensor, activation: str) -> None:
    gated_activation_reference(x, gate, out, activation)


@gated_activation_backward_op.implement("triton", supports=_triton_supports)
def _(grad_output: Tensor, x: Tensor, gate: Tensor, grad_x: Tensor, grad_gate: Tensor, activation: str) -> None:
    from planish_kernels.gated_activation.triton import gated_activation_backward_triton

    gated_activation_backward_triton(grad_output, x, gate, grad_x, grad_gate, activation)


@gated_activation_backward_op.implement("reference")
def _(grad_output: Tensor, x: Tensor, gate: Tensor, grad_x: Tensor, grad_gate: Tensor, activation: str) -> None:
    gated_activation_backward_reference(grad_output, x, gate, grad_x, grad_gate, activation)


def _flat(tensor: Tensor) -> Tensor:
    """``[tokens, cols]``: a view wherever the leading dimensions allow one."""
    return tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1])


def _empty_flat(like: Tensor, cols: int) -> Tensor:
    """``[tokens, cols]``, column-major if ``like`` (any rank) is, else row-major."""
    flat = _flat(like)
    tokens = flat.shape[0]
    if flat.stride(0) == 1 and flat.stride(1) > 1:
        return torch.empty((cols, tokens), dtype=like.dtype, device=like.device).t()
    return torch.empty((tokens, cols), dtype=like.dtype, device=like.device)


def _halves(packed: Tensor, gate_first: bool) -> tuple[Tensor, Tensor]:
    """``(x, gate)`` as views of ``packed [tokens, 2 * cols]``."""
    first, second = packed.chunk(2, dim=-1)
    return (second, first) if gate_first else (first, second)


@torch.library.custom_op("planish::gated_activation", mutates_args=())
def _separate(x: Tensor, gate: Tensor, activation: str, impl: str) -> Tensor:
    out = _empty_flat(x, x.shape[-1])
    gated_activation_op.dispatch(impl, _flat(x), _flat(gate), out, activation)
    return out.view(x.shape)


@_separate.register_fake
def _(x: Tensor, gate: Tensor, activation: str, impl: str) -> Tensor:
    return _empty_flat(x, x.shape[-1]).view(x.shape)


@torch.library.custom_op("planish::gated_activation_backward", mutates_args=())
def _separate_backward(
    grad_output: Tensor, x: Tensor, gate: Tensor, activation: str, impl: str
) -> tuple[Tensor, Tensor]:
    grad_x, grad_gate = _empty_flat(x, x.shape[-1]), _empty_flat(gate, x.shape[-1])
    gated_activation_backward_op.dispatch(
        impl, _flat(grad_output), _flat(x), _flat(gate), grad_x, grad_gate, activation
    )
    return grad_x.view(x.shape), grad_gate.view(x.shape)


@_separate_backward.register_fake
def _(grad_output: Tensor, x: Tensor, gate: Tensor, activation: str, impl: str) -> tuple[Tensor, Tensor]:
    cols = x.shape[-1]
    return _empty_flat(x, cols).view(x.shape), _empty_flat(gate, cols).view(x.shape)


def _keep_separate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, gate, ctx.activation, ctx.impl = inputs
    ctx.save_for_backward(x, gate)


def _separate_gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, None, None]:
    x, gate = ctx.saved_tensors
    grad_x, grad_gate = _separate_backward(grad_output, x, gate, ctx.activation, ctx.impl)
    return grad_x, grad_gate, None, None


_separate.register_autograd(_separate_gradients, setup_context=_keep_separate)


@torch.library.custom_op("planish::gated_activation_packed", mutates_args=())
def _packed(packed: Tensor, gate_first: bool, activation: str, impl: str) -> Tensor:
    cols = packed.shape[-1] // 2
    out = _empty_flat(packed, cols)
    gated_activation_op.dispatch(impl, *_halves(_flat(packed), gate_first), out, activation)
    return out.view(*packed.shape[:-1], cols)


@_packed.register_fake
def _(packed: Tensor, gate_first: bool, activation: str, impl: str) -> Tensor:
    cols = packed.shape[-1] // 2
    return _empty_flat(packed, cols).view(*packed.shape[:-1], cols)


@torch.library.custom_op("planish::gated_activation_packed_backward", mutates_args=())
def _packed_backward(grad_output: Tensor, packed: Tensor, gate_first: bool, activation: str, impl: str) -> Tensor:
    grad = _empty_flat(packed, packed.shape[-1])
    halves, grads = _halves(_flat(packed), gate_first), _halves(grad, gate_first)
    gated_activation_backward_op.dispatch(impl, _flat(grad_output), *halves, *grads, activation)
    return grad.view(packed.shape)


@_packed_backward.register_fake
def _(grad_output: Tensor, packed: Tensor, gate_first: bool, activation: str, impl: str) -> Tensor:
    return _empty_flat(packed, packed.shape[-1]).view(packed.shape)


def _keep_packed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    packed, ctx.gate_first, ctx.activation, ctx.impl = inputs
    ctx.save_for_backward(packed)


def _packed_gradient(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
    (packed,) = ctx.saved_tensors
    return _packed_backward(grad_output, packed, ctx.gate_first, ctx.activation, ctx.impl), None, None, None


_packed.register_autograd(_packed_gradient, setup_context=_keep_packed)


def _gated(x: Tensor, gate: Tensor | None, activation: str, gate_first: bool, impl: str) -> Tensor:
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}, expected a floating-point dtype")
    if x.dim() == 0:
        raise ValueError("x is 0-d, expected [..., cols]")
    if gate is None:
        if x.shape[-1] % 2:
            raise ValueError(
                f"x has last dimension {x.shape[-1]}, expected an even one that holds x and gate side by side: "
                "or pass gate on its own"
            )
        return _packed(x, gate_first, activation, impl)
    if gate_first:
        raise ValueError(
            "gate_first=True is for x and gate in one tensor, but gate was passed on its own: leave it out"
        )
    if gate.shape != x.shape or gate.dtype is not x.dtype or gate.device != x.device:
        raise ValueError(
            f"gate is {gate.dtype} {tuple(gate.shape)} on {gate.device}, expected it to be as x: "
            f"{x.dtype} {tuple(x.shape)} on {x.device}"
        )
    return _separate(x, gate, activation, impl)


def swiglu(x: Tensor, gate: Tensor | None = None, *, gate_first: bool = False, impl: str = "auto") -> Tensor:
    """``silu(gate) * x``, differentiable; the backward pass keeps only the inputs and computes the rest again.

    One kernel each way, in tiles, for any strides: column-major inputs, as sparse matmuls write them, are read along
    their columns. The arithmetic is in float32 (float64 for float64) and rounded once.

    Args:
        x: float ``[..., cols]``; or ``[..., 2 * cols]`` with x in the first half and gate in the second.
        gate: as x; None if x holds both.
        gate_first: gate is the first half of x, and x the second.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``[..., cols]`` of x's dtype; column-major (tokens contiguous) if x is, else contiguous.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices that do not fit.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Shazeer, "GLU Variants Improve Transformer", 2020, equation 6; the walk along columns: Hu et al.,
    "Accelerating Transformer Pre-training with 2:4 Sparsity", ICML 2024, section 5.2.
    """
    return _gated(x, gate, "silu", gate_first, impl)


def geglu(
    x: Tensor,
    gate: Tensor | None = None,
    *,
    approximate: str = "none",
    gate_first: bool = False,
    impl: str = "auto",
) -> Tensor:
    """``gelu(gate) * x``; as ``swiglu`` in everything else.

    Args:
        x, gate, gate_first, impl: as for ``swiglu``.
        approximate: ``"none"`` for the error function, ``"tanh"`` for its usual approximation, as in
            ``torch.nn.functional.gelu``.

    Raises:
        ValueError: also if ``approximate`` is neither.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate={approximate!r}, expected 'none' or 'tanh'")
    return _gated(x, gate, "gelu" if approximate == "none" else "gelu_tanh", gate_first, impl)
