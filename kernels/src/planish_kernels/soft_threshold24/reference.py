"""Soft thresholding to 2:4, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def _thresholded(weight: Tensor) -> Tensor:
    """``sign(a) * max(|a| - t, 0)``, t the second smallest magnitude of each group of four; float32 or float64."""
    compute = torch.float64 if weight.dtype is torch.float64 else torch.float32
    groups = weight.detach().to(compute).reshape(*weight.shape[:-1], weight.shape[-1] // 4, 4)
    magnitudes = groups.abs()
    threshold = magnitudes.sort(dim=-1).values[..., 1:2]
    shrunk = torch.copysign((magnitudes - threshold).clamp(min=0), groups)
    is_nan = groups.isnan().any(-1, keepdim=True)
    return torch.where(is_nan, torch.nan, shrunk).view(weight.shape)


def soft_threshold24_reference(weight: Tensor, beta: Tensor) -> Tensor:
    """See ``planish_kernels.soft_threshold24.soft_threshold24``."""
    thresholded = _thresholded(weight)
    return (beta.to(thresholded.dtype) * thresholded).to(weight.dtype).contiguous()


def mse_scale_sums_reference(weight: Tensor) -> Tensor:
    """float64 ``[2]``: the inner product of the weight with its thresholded form, and that form's squared norm."""
    thresholded = _thresholded(weight).to(torch.float64)
    return torch.stack(((weight.detach().to(torch.float64) * thresholded).sum(), thresholded.square().sum()))
