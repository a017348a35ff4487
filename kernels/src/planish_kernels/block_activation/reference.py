"""Activations of block-scaled operands in plain torch: decode, compute in float32, quantize."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_quantize.reference import block_quantize_reference
from planish_kernels.formats.block_scaled import decoded
from planish_kernels.gated_activation.reference import activation_and_slope


def block_activation_reference(
    x_codes: Tensor, x_scales: Tensor, up_codes: Tensor | None, up_scales: Tensor | None, block: int, activation: str
) -> tuple[Tensor, Tensor]:
    """Codes and scales of ``act(x)``, or of ``act(x) * up``."""
    out, _ = activation_and_slope(decoded(x_codes, x_scales, block), activation)
    if up_codes is not None and up_scales is not None:
        out = out * decoded(up_codes, up_scales, block)
    none = torch.zeros((), dtype=torch.int64, device=x_codes.device)
    return block_quantize_reference(out, x_codes.dtype, block, False, none, none)


def block_activation_backward_reference(
    grad_codes: Tensor,
    grad_scales: Tensor,
    x_codes: Tensor,
    x_scales: Tensor,
    up_codes: Tensor | None,
    up_scales: Tensor | None,
    block: int,
    activation: str,
    side_by_side: bool,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
) -> tuple[Tensor | None, ...]:
    """Codes and scales of the gradient of ``x``, and of that of ``up`` if there is one (drawn under ``offset + 1``)."""
    grad = decoded(grad_codes, grad_scales, block)
    value, slope = activation_and_slope(decoded(x_codes, x_scales, block), activation)
    how = (grad_codes.dtype, block, stochastic, seed)
    if up_codes is None or up_scales is None:
        return *block_quantize_reference(grad * slope, *how, offset), None, None
    up = decoded(up_codes, up_scales, block)
    of_x = block_quantize_reference(grad * up * slope, *how, offset)
    of_up = block_quantize_reference(grad * value, *how, offset + 1)
    if side_by_side:
        return torch.cat((of_x[0], of_up[0]), 1), torch.cat((of_x[1], of_up[1]), 1), None, None
    return *of_x, *of_up
