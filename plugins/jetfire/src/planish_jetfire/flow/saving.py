"""Saving quantized tensors for backward as the tensors that they are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from planish_kernels.formats.block_scaled import BlockScaled
from torch import Tensor


def save(ctx: Any, quantized: Sequence[BlockScaled], tensors: Sequence[Tensor | None]) -> None:
    """Save both kinds; :func:`saved` gives them back."""
    ctx.formats = tuple((type(q), q.block, q.dtype) for q in quantized)
    flat = [part for q in quantized for part in (q.codes, q.scales)]
    ctx.save_for_backward(*flat, *tensors)


def saved(ctx: Any) -> tuple[list[BlockScaled], list[Any]]:
    """What was saved: the quantized tensors, then the others."""
    flat = ctx.saved_tensors
    count = len(ctx.formats)
    quantized = [
        format(flat[2 * i], flat[2 * i + 1], block, dtype) for i, (format, block, dtype) in enumerate(ctx.formats)
    ]
    return quantized, list(flat[2 * count :])


def no_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Inside, dtypes are ours: what computes in float32 must not be cast behind its back.

    A compiled backward is traced under the forward's autocast, which ``is_autocast_enabled`` does not show there.
    """
    if torch.is_autocast_enabled(tensor.device.type) or torch.compiler.is_compiling():
        return torch.autocast(tensor.device.type, enabled=False)
    return contextlib.nullcontext()
