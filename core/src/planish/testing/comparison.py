"""Comparing tensors and state dicts, with a sentence for the first difference."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return where two mappings of tensors differ (names, shapes, dtypes or bits), or an empty string."""
    for name in expected:
        if name not in found:
            return f"{name!r} is missing"
    for name, tensor in found.items():
        if name not in expected:
            return f"{name!r} is new"
        other = expected[name]
        if tensor.shape != other.shape or tensor.dtype != other.dtype:
            return f"{name!r} is {tensor.dtype} {list(tensor.shape)}, expected {other.dtype} {list(other.shape)}"
        if not torch.equal(tensor, other):
            gap = (tensor.double() - other.double()).abs().max().item()
            return f"{name!r} differs by up to {gap:.3g}"
    return ""


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return RMS(found - expected) / RMS(expected) in float64; infinite for another shape or a non-finite value."""
    if found.shape != expected.shape or not torch.isfinite(found).all():
        return float("inf")
    found, expected = found.detach().double(), expected.detach().double()
    scale = expected.square().mean().sqrt().item()
    gap = (found - expected).square().mean().sqrt().item()
    return gap / scale if scale else gap


def clone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of a state dict that later changes of the model do not reach."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}
