"""Norms of block-scaled operands in plain torch: decode, compute in float32, quantize."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_quantize.reference import block_quantize_reference
from planish_kernels.formats.block_scaled import decoded


def row_statistics_reference(codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float) -> Tensor:
    """float32 ``[2, rows]``: mean (zero for RMSNorm) and reciprocal deviation of each row, in two passes."""
    x = decoded(codes, scales, block)
    mean = torch.zeros_like(x[:, 0]) if is_rms else x.mean(1)
    variance = (x - mean[:, None]).square().mean(1)
    return torch.stack((mean, torch.rsqrt(variance + eps)))


def block_norm_reference(
    codes: Tensor, scales: Tensor, block: int, statistics: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Codes and scales of ``(x - mean) * rstd * weight + bias``."""
    out = _normalised(decoded(codes, scales, block), statistics)
    if weight is not None:
        out = out * weight.to(torch.float32)
    if bias is not None:
        out = out + bias.to(torch.float32)
    none = torch.zeros((), dtype=torch.int64, device=codes.device)
    return block_quantize_reference(out, codes.dtype, block, False, none, none)


def block_norm_backward_reference(
    grad_codes: Tensor,
    grad_scales: Tensor,
    codes: Tensor,
    scales: Tensor,
    block: int,
    statistics: Tensor,
    weight: Tensor | None,
    has_bias: bool,
    is_rms: bool,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes and scales of the gradient of ``x``, and float32 gradients ``[cols]`` of weight and bias, if it has one."""
    grad = decoded(grad_codes, grad_scales, block)
    normal = _normalised(decoded(codes, scales, block), statistics)
    inner = grad if weight is None else grad * weight.to(torch.float32)
    along = (inner * normal).mean(1, keepdim=True)
    level = torch.zeros_like(along) if is_rms else inner.mean(1, keepdim=True)
    grad_x = statistics[1][:, None] * (inner - level - normal * along)
    quantized = block_quantize_reference(grad_x, grad_codes.dtype, block, stochastic, seed, offset)
    return *quantized, (grad * normal).sum(0), grad.sum(0) if has_bias else grad.new_empty(0)


def _normalised(x: Tensor, statistics: Tensor) -> Tensor:
    return (x - statistics[0][:, None]) * statistics[1][:, None]
