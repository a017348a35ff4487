"""Masked decay on gradients in one pass: reads gradient, weight and mask bits once, writes the gradient."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _masked_decay_kernel(
    grad,
    weight,
    bits,
    active,
    decay,
    cols,
    programs_across,
    grad_stride_row,
    grad_stride_col,
    weight_stride_row,
    weight_stride_col,
    bits_stride_row,
    bits_stride_col,
    OCTETS: tl.constexpr,
    HAS_ACTIVE: tl.constexpr,
):
    """A program covers ``8 * OCTETS`` columns of a row: a byte of the mask for every eight."""
    program = tl.program_id(0)
    row = (program // programs_across).to(tl.int64)
    octet = (program % programs_across).to(tl.int64) * OCTETS + tl.arange(0, OCTETS)[:, None]
    place = tl.arange(0, 8)[None, :]
    column = octet * 8 + place
    is_on = 1
    if HAS_ACTIVE:
        is_on = (tl.load(active) != 0).to(tl.int32)
    if is_on != 0:
        byte = tl.load(bits + row * bits_stride_row + octet * bits_stride_col, mask=octet * 8 < cols, other=0xFF)
        inside = column < cols
        decays = ((byte.to(tl.int32) >> place) & 1) == 0
        here = grad + row * grad_stride_row + column * grad_stride_col
        g = tl.load(here, mask=inside, other=0.0)
        w = tl.load(weight + row * weight_stride_row + column * weight_stride_col, mask=inside, other=0.0)
        decayed = g.to(tl.float32) + decay * w.to(tl.float32)
        tl.store(here, tl.where(decays, decayed.to(grad.dtype.element_ty), g), mask=inside)


def masked_decay_triton(
    grad: Tensor,
    weight: Tensor,
    bits: Tensor,
    decay: float,
    active: Tensor | None,
    *,
    octets: int = 128,
    num_warps: int | None = None,
) -> None:
    """See ``planish_kernels.masked_decay.masked_decay_``."""
    rows, cols = weight.shape
    num_warps = num_warps or (4 if weight.element_size() == 2 else 8)  # sixteen bytes a thread
    if weight.numel() == 0:
        return
    programs_across = triton.cdiv(triton.cdiv(cols, 8), octets)
    with torch.cuda.device_of(grad):
        _masked_decay_kernel[(programs_across * rows,)](
            grad,
            weight,
            bits,
            bits if active is None else active,
            decay,
            cols,
            programs_across,
            *grad.stride(),
            *weight.stride(),
            *bits.stride(),
            OCTETS=octets,
            HAS_ACTIVE=active is not None,
            num_warps=num_warps,
        )
