"""The operators ``mvue24`` (dense) and ``mvue24_pack`` (2:4 packed, transposed)."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.mvue24.reference import mvue24_pack_reference, mvue24_reference
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import YES, Support, no

METHODS = ("exact", "approx")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

mvue24_op = Op("mvue24", "unbiased minimum-variance 2:4 estimate of a gradient along its tokens, dense")
mvue24_pack_op = Op("mvue24_pack", "the same estimate, transposed and packed as 2:4 values and mask bits")


def _kernel_support(grad: Tensor) -> Support:
    if grad.dtype not in KERNEL_DTYPES:
        return no(f"the kernel computes in float32, grad is {grad.dtype}: use float32, float16 or bfloat16")
    return triton_runs_on(grad.device)


def _triton_supports(grad: Tensor, seed: Tensor, offset: Tensor, method: str = "exact") -> Support:
    if method != "exact":
        return no(f"method {method!r} is for comparison and has no kernel", worth_warning=False)
    return _kernel_support(grad)


def _on_cpu(grad: Tensor, seed: Tensor, offset: Tensor, method: str = "exact") -> Support:
    if grad.device.type != "cpu":
        return no(f"grad is on {grad.device.type}, this is for CPUs", worth_warning=False)
    if grad.dtype not in KERNEL_DTYPES:
        return no(f"it computes in float32, grad is {grad.dtype}", worth_warning=False)
    if method != "exact":
        return no(f"method {method!r} is for comparison and has no kernel", worth_warning=False)
    return YES


@mvue24_op.implement("triton", supports=_triton_supports)
def _(grad: Tensor, seed: Tensor, offset: Tensor, method: str) -> Tensor:
    from planish_kernels.mvue24.triton import mvue24_triton

    return mvue24_triton(grad, seed, offset)


@mvue24_op.implement("cpu", supports=_on_cpu)
def _(grad: Tensor, seed: Tensor, offset: Tensor, method: str) -> Tensor:
    from planish_kernels.mvue24.planes import mvue24_by_planes

    return mvue24_by_planes(grad, seed, offset)


@mvue24_op.implement("reference")
def _(grad: Tensor, seed: Tensor, offset: Tensor, method: str) -> Tensor:
    return mvue24_reference(grad, seed, offset, method)


@mvue24_pack_op.implement("triton", supports=_triton_supports)
def _(grad: Tensor, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    from planish_kernels.mvue24.triton import mvue24_pack_triton

    return mvue24_pack_triton(grad, seed, offset)


@mvue24_pack_op.implement("cpu", supports=_on_cpu)
def _(grad: Tensor, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    from planish_kernels.mvue24.planes import mvue24_pack_by_planes

    return mvue24_pack_by_planes(grad, seed, offset)


@mvue24_pack_op.implement("reference")
def _(grad: Tensor, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    return mvue24_pack_reference(grad, seed, offset)


@torch.library.custom_op("planish::mvue24", mutates_args=())
def _mvue24(grad: Tensor, seed: Tensor, offset: Tensor, method: str, impl: str) -> Tensor:
    return mvue24_op.dispatch(impl, grad, seed, offset, method)


@_mvue24.register_fake
def _(grad: Tensor, seed: Tensor, offset: Tensor, method: str, impl: str) -> Tensor:
    return grad.new_empty(grad.shape)


@torch.library.custom_op("planish::mvue24_pack", mutates_args=())
def _mvue24_pack(grad: Tensor, seed: Tensor, offset: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    return mvue24_pack_op.dispatch(impl, grad, seed, offset)


@_mvue24_pack.register_fake
def _(grad: Tensor, seed: Tensor, offset: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    tokens, channels = grad.shape
    groups = (tokens + 3) // 4
    return grad.new_empty((channels, groups * 2)), grad.new_empty((channels, (groups + 1) // 2), dtype=torch.uint8)


def _check_grad(grad: Tensor) -> None:
    if grad.dim() != 2:
        raise ValueError(
            f"grad has shape {tuple(grad.shape)}, expected two dimensions [tokens, channels]: flatten the leading ones"
        )
    if not grad.is_floating_point():
        raise TypeError(f"grad has dtype {grad.dtype}, expected a floating-point dtype")


def mvue24(
    grad: Tensor, seed: int | Tensor, offset: int | Tensor, dim: int = 0, *, method: str = "exact", impl: str = "auto"
) -> Tensor:
    """Replace each group of four values along ``dim`` by a random one with at most two nonzeros and the same mean.

    A value of magnitude a is kept with probability ``p = min(1, c * a)``, c such that two are kept, and becomes
    ``a / p``; of all unbiased 2:4 estimators this has the least variance, ``sum a^2 (1/p - 1)``. Groups with at most
    two nonzeros come back unchanged. The draws depend on ``(seed, offset, place of the group)`` alone, on every
    backend and device: take a seed for each rank and layer, and an offset for each (micro-)step. Pass tensors to have
    fresh draws at each replay of a CUDA graph; a plain int is baked into the graph.

    The arithmetic is in float32 (float64 for float64), where the estimate is unbiased up to rounding: uniforms are
    multiples of 2^-23, so an expectation is off by at most 2^-23 of its group's sum. A 16-bit result is rounded to
    nearest once, at the end, which moves each kept value by at most half a unit in its last place (2^-9 of it for
    bfloat16, 2^-12 for float16; a float16 result overflows where half the sum of a group does).

    Args:
        grad: float ``[tokens, channels]``, any strides. A last group of fewer than four is filled up with zeros that
            are not returned.
        seed: 64-bit integer, or 0-d int64 tensor.
        offset: Likewise.
        dim: 0 groups consecutive tokens, 1 consecutive channels.
        method: ``"exact"``, or ``"approx"`` for the pair-sampling estimator, whose variance is higher (reference
            backend only; for comparisons).
        impl: a backend by name, or ``"auto"``.

    Returns:
        A contiguous tensor of ``grad``'s shape and dtype (for ``dim=1``: the transpose of a contiguous one). A group
        with an infinity or NaN, or whose sum overflows, is NaN throughout, so that loss scaling and anomaly checks
        see it.

    Raises:
        ValueError, TypeError: arguments of another shape, dtype or range.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Chmiel et al., "Minimum variance unbiased N:M sparsity for the neural gradients", ICLR 2023; the
    probabilities in closed form and their systematic sampling are derived in ``reference.py``.
    """
    _check_grad(grad)
    if dim not in (0, 1, -1, -2):
        raise ValueError(f"dim={dim}, expected 0 (groups of tokens) or 1 (groups of channels)")
    if method not in METHODS:
        raise ValueError(f"method={method!r}, expected one of {', '.join(map(repr, METHODS))}")
    seed, offset = as_scalar("seed", seed, grad.device), as_scalar("offset", offset, grad.device)
    if dim in (0, -2):
        return _mvue24(grad, seed, offset, method, impl)
    return _mvue24(grad.t(), seed, offset, method, impl).t()


def mvue24_pack(grad: Tensor, seed: int | Tensor, offset: int | Tensor, *, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """``mvue24(grad, seed, offset).T`` in packed form, in one pass over ``grad``.

    Args:
        grad: float ``[tokens, channels]``, any strides. If tokens is no multiple of four, zero tokens are added.
        seed: as for ``mvue24``.
        offset: as for ``mvue24``.
        impl: as for ``mvue24``.

    Returns:
        ``values``: ``[channels, 2 * ceil(tokens / 4)]`` of ``grad``'s dtype, the two kept values of each group in the
        order of their tokens. ``bits``: uint8 ``[channels, ceil(ceil(tokens / 4) / 2)]``, the mask as ``pack_mask``
        packs it, with exactly two bits in every group (a place that is marked only to make two holds zero). A group
        that is not finite holds two NaN.

    Raises:
        ValueError, TypeError: arguments of another shape, dtype or range.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    _check_grad(grad)
    seed, offset = as_scalar("seed", seed, grad.device), as_scalar("offset", offset, grad.device)
    return _mvue24_pack(grad, seed, offset, impl)
