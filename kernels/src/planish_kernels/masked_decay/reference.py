"""Masked decay on gradients, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.mask24.bits import unpack_mask


def masked_decay_reference(grad: Tensor, weight: Tensor, bits: Tensor, decay: float, active: Tensor | None) -> None:
    """``grad += decay * (1 - mask) * weight`` in place; see ``planish_kernels.masked_decay.masked_decay_``."""
    decays = ~unpack_mask(bits, weight.shape[1])
    if active is not None:
        decays = decays & (active != 0)
    compute = torch.float64 if torch.float64 in (grad.dtype, weight.dtype) else torch.float32
    decayed = grad.to(compute) + decay * weight.to(compute)
    grad.copy_(torch.where(decays, decayed.to(grad.dtype), grad))
