"""The operator ``masked_decay_``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from planish_kernels.masked_decay.reference import masked_decay_reference
from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

masked_decay_op = Op("masked_decay", "add decay * (1 - mask) * weight to a gradient, in place")


def _triton_supports(grad: Tensor, weight: Tensor, bits: Tensor, decay: float, active: Tensor | None) -> Support:
    for name, tensor in (("grad", grad), ("weight", weight)):
        if tensor.dtype not in KERNEL_DTYPES:
            return no(f"it computes in float32, {name} is {tensor.dtype}: use float32, float16 or bfloat16")
    return triton_runs_on(grad.device)


@masked_decay_op.implement("triton", supports=_triton_supports)
def _(grad: Tensor, weight: Tensor, bits: Tensor, decay: float, active: Tensor | None) -> None:
    from planish_kernels.masked_decay.triton import masked_decay_triton

    masked_decay_triton(grad, weight, bits, decay, active)


@masked_decay_op.implement("reference")
def _(grad: Tensor, weight: Tensor, bits: Tensor, decay: float, active: Tensor | None) -> None:
    masked_decay_reference(grad, weight, bits, decay, active)


@torch.library.custom_op("planish::masked_decay_", mutates_args=("grad",))
def _masked_decay(grad: Tensor, weight: Tensor, bits: Tensor, decay: float, active: Tensor | None, impl: str) -> None:
    masked_decay_op.dispatch(impl, grad, weight, bits, decay, active)


@_masked_decay.register_fake
def _(grad: Tensor, weight: Tensor, bits: Tensor, decay: float, active: Tensor | None, impl: str) -> None:
    return None


def masked_decay_(
    grad: Tensor, weight: Tensor, mask_bits: Tensor, decay: float, *, active: Tensor | None = None, impl: str = "auto"
) -> Tensor:
    """``grad += decay * (1 - mask) * weight`` in place, in one pass.

    Pulls the pruned weights towards zero through the optimizer (inside Adam, unlike SR-STE, which decays the weights
    themselves). Call it after gradient clipping and before the optimizer step. Where the mask is one the gradient is
    not touched, whatever the weight holds. The sum is in float32 (float64 if an argument is) and rounded once.

    Args:
        grad: float ``[rows, cols]``, any strides without overlap; changed in place.
        weight: float ``[rows, cols]``, of any dtype.
        mask_bits: uint8 ``[rows, ceil(cols / 8)]``, as ``pack_mask`` packs it.
        decay: finite and not negative.
        active: None, or a 0-d tensor on ``grad``'s device: where it is zero nothing happens. Lets a CUDA graph switch
            the decay off without being captured anew.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``grad``.

    Raises:
        ValueError, TypeError: arguments that do not fit.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Hu et al., "Accelerating Transformer Pre-training with 2:4 Sparsity", ICML 2024, section 4.2.
    """
    if weight.dim() != 2 or grad.shape != weight.shape:
        raise ValueError(
            f"grad has shape {tuple(grad.shape)} and weight {tuple(weight.shape)}, expected the same [rows, cols]"
        )
    rows, cols = weight.shape
    if mask_bits.dtype is not torch.uint8 or mask_bits.shape != (rows, (cols + 7) // 8):
        raise ValueError(
            f"mask_bits is {mask_bits.dtype} {tuple(mask_bits.shape)}, expected torch.uint8 "
            f"{(rows, (cols + 7) // 8)}: pack the mask with pack_mask"
        )
    if not (grad.is_floating_point() and weight.is_floating_point()):
        raise TypeError(f"grad is {grad.dtype} and weight {weight.dtype}, expected floating-point dtypes")
    if not (math.isfinite(decay) and decay >= 0):
        raise ValueError(f"decay={decay}, expected a finite number that is not negative")
    if active is not None and (active.dim() != 0 or active.device != grad.device):
        raise ValueError(
            f"active has shape {tuple(active.shape)} on {active.device}, expected a 0-d tensor on {grad.device}"
        )
    with torch.no_grad():
        _masked_decay(grad, weight.detach(), mask_bits, float(decay), active, impl)
    return grad
