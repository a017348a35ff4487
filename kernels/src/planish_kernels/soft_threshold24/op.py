"""The operators ``soft_threshold24`` and ``minimum_mse_scale``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no
from planish_kernels.soft_threshold24.reference import mse_scale_sums_reference, soft_threshold24_reference

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

soft_threshold24_op = Op("soft_threshold24", "soft thresholding to 2:4, scaled, with an identity gradient")
minimum_mse_scale_op = Op("minimum_mse_scale", "the sums behind the scale that brings it closest to the weight")


def _triton_supports(weight: Tensor, beta: Tensor | None = None) -> Support:
    if weight.dtype not in KERNEL_DTYPES:
        return no(f"it computes in float32, weight is {weight.dtype}: use float32, float16 or bfloat16")
    return triton_runs_on(weight.device)


@soft_threshold24_op.implement("triton", supports=_triton_supports)
def _(weight: Tensor, beta: Tensor) -> Tensor:
    from planish_kernels.soft_threshold24.triton import soft_threshold24_triton

    return soft_threshold24_triton(weight, beta)


@soft_threshold24_op.implement("reference")
def _(weight: Tensor, beta: Tensor) -> Tensor:
    return soft_threshold24_reference(weight, beta)


@minimum_mse_scale_op.implement("triton", supports=_triton_supports)
def _(weight: Tensor) -> Tensor:
    from planish_kernels.soft_threshold24.triton import mse_scale_sums_triton

    return mse_scale_sums_triton(weight)


@minimum_mse_scale_op.implement("reference")
def _(weight: Tensor) -> Tensor:
    return mse_scale_sums_reference(weight)


@torch.library.custom_op("planish::soft_threshold24", mutates_args=())
def _soft_threshold24(weight: Tensor, beta: Tensor, impl: str) -> Tensor:
    return soft_threshold24_op.dispatch(impl, weight, beta)


@_soft_threshold24.register_fake
def _(weight: Tensor, beta: Tensor, impl: str) -> Tensor:
    return weight.new_empty(weight.shape)


def _straight_through(_: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
    return grad_output.clone(), None, None  # an operator's gradient must not alias what it got


_soft_threshold24.register_autograd(_straight_through)


@torch.library.custom_op("planish::minimum_mse_scale", mutates_args=())
def _mse_scale_sums(weight: Tensor, impl: str) -> Tensor:
    return minimum_mse_scale_op.dispatch(impl, weight)


@_mse_scale_sums.register_fake
def _(weight: Tensor, impl: str) -> Tensor:
    return weight.new_empty((2,), dtype=torch.float64)


def _check_weight(weight: Tensor) -> None:
    if weight.dim() != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected two dimensions [rows, cols]")
    if weight.shape[1] % 4:
        raise ValueError(
            f"weight has {weight.shape[1]} columns, expected a multiple of 4: leave this layer dense, or pad it"
        )
    if not weight.is_floating_point():
        raise TypeError(f"weight has dtype {weight.dtype}, expected a floating-point dtype")


def soft_threshold24(weight: Tensor, beta: Tensor, *, impl: str = "auto") -> Tensor:
    """``beta * sign(a) * max(|a| - t, 0)``, t the second smallest magnitude of every four columns.

    Continuous in the weight, unlike keeping the two largest as they are; at least two of four are zero. The gradient
    goes straight through, unscaled: ``d loss / d weight`` is ``d loss / d output``, and beta gets none.

    Args:
        weight: float ``[rows, cols]``, ``cols`` a multiple of 4, any strides.
        beta: 0-d floating tensor on the same device, frozen at initialisation; see ``minimum_mse_scale``.
        impl: a backend by name, or ``"auto"``.

    Returns:
        A contiguous tensor of ``weight``'s shape and dtype, computed in float32 (float64 for float64) and rounded
        once. A group with a NaN is all NaN.

    Raises:
        ValueError, TypeError: arguments that do not fit; the message names the multiple that is required.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Hu, Zhu, Chen, "S-STE: Continuous Pruning Function for Efficient 2:4 Sparse Pre-training", NeurIPS 2024,
    section 4.
    """
    _check_weight(weight)
    if beta.dim() != 0 or beta.device != weight.device or not beta.is_floating_point():
        raise ValueError(
            f"beta is {beta.dtype} {tuple(beta.shape)} on {beta.device}, expected a 0-d floating tensor on "
            f"{weight.device}: minimum_mse_scale(weight) returns one"
        )
    return _soft_threshold24(weight, beta.detach(), impl)


def minimum_mse_scale(weight: Tensor, *, impl: str = "auto") -> Tensor:
    """The beta that brings ``soft_threshold24(weight, beta)`` closest to the weight in mean squared error.

    ``beta = <W, S(W)> / |S(W)|^2``, about 1.482 for normally distributed weights. Sums are in float64. Compute it once,
    after the weight is initialised: following the weight with it makes it grow from layer to layer.

    Args:
        weight: float ``[rows, cols]``, ``cols`` a multiple of 4, any strides.
        impl: a backend by name, or ``"auto"``.

    Returns:
        0-d float32 tensor (float64 for a float64 weight) on the weight's device. It is 1 if ``S(W)`` is zero
        throughout, where every beta is as good.

    Raises:
        ValueError, TypeError: arguments that do not fit.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: as for ``soft_threshold24``, the section on rescaling.
    """
    _check_weight(weight)
    product, norm = _mse_scale_sums(weight.detach(), impl).unbind()
    beta = torch.where(norm == 0, 1.0, product / norm)
    return beta.to(torch.float64 if weight.dtype is torch.float64 else torch.float32)
