"""Recognises LayerNorm and RMSNorm by what they compute."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from planish_jetfire.structure.transformer_block import NormKind

_EPS_NAMES = ("eps", "variance_epsilon", "epsilon", "layer_norm_eps")
_USUAL_EPS = (1e-5, 1e-6, 1e-12, 1e-8)
_AGREE = 1e-5


def vector_width(module: nn.Module) -> int | None:
    """The length of a leaf module's one-dimensional ``weight``, else None: what a norm has."""
    weight = module._parameters.get("weight")
    leaf = next(module.children(), None) is None
    return weight.shape[0] if leaf and weight is not None and weight.dim() == 1 else None


@torch.no_grad()
def norm_kind(module: nn.Module) -> NormKind | None:
    """What a norm computes, found by running a float64 copy on rows of several sizes; None if it is something else."""
    width = vector_width(module)
    weight = module._parameters.get("weight")
    if (
        width is None
        or weight is None
        or weight.is_meta
        or set(module._parameters) - {"weight", "bias"}
        or module._buffers
    ):
        return None
    generator = torch.Generator().manual_seed(0)
    probe = copy.copy(module)
    # Parameters of its own, and none of the hooks.
    probe.__dict__.update({key: type(value)() for key, value in module.__dict__.items() if "_hooks" in key})
    probe._parameters = {name: None if p is None else _double(p) for name, p in module._parameters.items()}
    probe.training = False
    for parameter in probe.parameters():
        parameter.copy_(torch.randn(width, generator=generator, dtype=torch.float64))
    weight, bias = probe._parameters["weight"], probe._parameters.get("bias")
    size = torch.tensor([1.0, 1e-2, 1e-3, 1e-4], dtype=torch.float64)[:, None]
    x = (torch.randn(4, width, generator=generator, dtype=torch.float64) + 0.5) * size
    try:
        expected = probe(x)
    except Exception:  # it takes something else than one tensor
        return None
    if not isinstance(expected, Tensor) or expected.shape != x.shape:
        return None
    stated = [float(value) for name in _EPS_NAMES if isinstance(value := getattr(module, name, None), float)]
    for eps in (*stated, *_USUAL_EPS):
        for kind in ("layer", "rms"):
            found = apply_norm(x, NormKind(kind, eps), weight, bias)
            if float((found - expected).norm() / expected.norm()) < _AGREE:
                return NormKind(kind, eps)
    return None


def apply_norm(x: Tensor, norm: NormKind, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The norm of ``x`` [..., features], in its dtype."""
    if norm.kind == "layer":
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, norm.eps)
    normal = torch.nn.functional.rms_norm(x, x.shape[-1:], weight, norm.eps)
    return normal if bias is None else normal + bias


def _double(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(parameter, dtype=torch.float64, device="cpu"), requires_grad=False)
