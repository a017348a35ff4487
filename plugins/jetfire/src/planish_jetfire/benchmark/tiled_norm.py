"""A defect of the published norm kernel, to be switched on in experiments: means over a row that see 128 columns of it.

Its backward pass runs in tiles of 128 columns; the two means over the row are summed within the tile, and divided by
the whole row's length. Up to 128 columns that is right; beyond, the gradient is wrong.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planish_jetfire.benchmark.planted_outliers import norms

TILE = 128


def tile_means(values: Tensor) -> Tensor:
    """For each entry of ``[..., cols]``: the sum over its tile of columns, over ``cols``."""
    cols = values.shape[-1]
    padded = F.pad(values, (0, -cols % TILE))
    sums = padded.reshape(*padded.shape[:-1], -1, TILE).sum(-1) / cols
    return sums.repeat_interleave(TILE, -1)[..., :cols]


class _TiledNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        """LayerNorm where there is a bias, else RMSNorm."""
        mean = torch.zeros_like(x[..., :1]) if bias is None else x.mean(-1, keepdim=True)
        rstd = torch.rsqrt((x - mean).square().mean(-1, keepdim=True) + eps)
        normal = (x - mean) * rstd
        ctx.save_for_backward(normal, rstd, weight)
        ctx.has_bias = bias is not None
        return normal * weight if bias is None else normal * weight + bias

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normal, rstd, weight = ctx.saved_tensors
        inner = grad * weight
        level = tile_means(inner) if ctx.has_bias else 0.0
        grad_x = rstd * (inner - level - normal * tile_means(inner * normal))
        rows = tuple(range(grad.dim() - 1))
        return grad_x, (grad * normal).sum(rows), grad.sum(rows) if ctx.has_bias else None, None


class TiledNorm(nn.Module):
    """A LayerNorm or RMSNorm with the defect, on the parameters of a right one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = norm.get_parameter("weight")
        self.bias = getattr(norm, "bias", None)
        self.eps = float(getattr(norm, "eps", None) or getattr(norm, "variance_epsilon"))  # noqa: B009

    def forward(self, x: Tensor) -> Tensor:
        """``[..., cols]`` to the same; its gradient is wrong beyond 128 columns."""
        out: Tensor = _TiledNormFunction.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return out


def tile_norms(model: nn.Module) -> int:
    """Put the defect into the norms of all blocks; return of how many."""
    found = list(norms(model))
    for block, name, _ in found:
        setattr(block, name, TiledNorm(block.get_submodule(name)))
    return len(found)
