"""Soft thresholding to 2:4, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def _thresholded(weight: Tensor) -> Tensor:
    """``sign(a) * max(|a| - t, 0)``, t the second smallest magnitude of each group of four; float32 or float64."""
    compute = torch.float64 if weight.dtype is torch.float64 else torch.float32
    groups = weight.detach().to(compute).reshape(*weight.shape[:-1], weight.shape[-1] // 4, 4)
    magnitudes = groups.abs()
    a0, a1, a2, a3 = magnitudes.unbind(-1)
    low, other_low, high, other_high = a0.minimum(a1), a2.minimum(a3), a0.maximum(a1), a2.maximum(a3)
    threshold = low.maximum(other_low).minimum(high.minimum(other_high)).unsqueeze(-1)  # NaN if one of them is
    return torch.copysign((magnitudes - threshold).clamp(min=0), groups).view(weight.shape)


def soft_threshold24_reference(weight: Tensor, beta: Tensor) -> Tensor:
    """See ``planish_kernels.soft_threshold24.soft_threshold24``."""
    thresholded = _thresholded(weight)
    return (beta.to(thresholded.dtype) * thresholded).to(weight.dtype).contiguous()


def mse_scale_sums_reference(weight: Tensor) -> Tensor:
    """float64 ``[2]``: the inner product of the weight with its thresholded form, and that form's squared norm."""
    thresholded = _thresholded(weight).to(torch.float64)
    return torch.stack(((weight.detach().to(torch.float64) * thresholded).sum(), thresholded.square().sum()))
