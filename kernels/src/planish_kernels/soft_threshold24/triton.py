"""Soft thresholding to 2:4 in one pass, and the two sums of its best scale."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _load_quads(weight, row, quad, cols, stride_row, stride_col, QUADS: tl.constexpr):
    """Columns ``4 * quad .. 4 * quad + 3`` of a row as float32, four tensors ``[QUADS]``; zero past the last column."""
    column = quad[:, None] * 4 + tl.arange(0, 4)[None, :]
    values = tl.load(weight + row * stride_row + column * stride_col, mask=column < cols, other=0.0)
    even, odd = tl.split(tl.reshape(values.to(tl.float32), (QUADS, 2, 2)))
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    return x0, x1, x2, x3


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _second_smallest(x0, x1, x2, x3):
    """Of four magnitudes; NaN if one of them is."""
    a0, a1, a2, a3 = tl.abs(x0), tl.abs(x1), tl.abs(x2), tl.abs(x3)
    return _smaller(_larger(_smaller(a0, a1), _smaller(a2, a3)), _smaller(_larger(a0, a1), _larger(a2, a3)))


@triton.jit
def _shrink(x, threshold):
    shrunk = _larger(tl.abs(x) - threshold, 0.0)
    return tl.where(x < 0, -shrunk, shrunk)


@triton.jit
def _soft_threshold_kernel(weight, out, beta, cols, programs_across, stride_row, stride_col, QUADS: tl.constexpr):
    program = tl.program_id(0)
    row = (program // programs_across).to(tl.int64)
    quad = (program % programs_across).to(tl.int64) * QUADS + tl.arange(0, QUADS)
    x0, x1, x2, x3 = _load_quads(weight, row, quad, cols, stride_row, stride_col, QUADS)
    threshold = _second_smallest(x0, x1, x2, x3)
    even = tl.join(_shrink(x0, threshold), _shrink(x2, threshold))
    odd = tl.join(_shrink(x1, threshold), _shrink(x3, threshold))
    shrunk = tl.reshape(tl.join(even, odd), (QUADS, 4)) * tl.load(beta).to(tl.float32)
    column = quad[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(out + row * cols + column, shrunk.to(out.dtype.element_ty), mask=column < cols)


@triton.jit
def _inner_products(x, threshold):
    shrunk = _shrink(x, threshold).to(tl.float64)
    return x.to(tl.float64) * shrunk, shrunk * shrunk


@triton.jit
def _mse_scale_kernel(weight, sums, cols, programs_across, stride_row, stride_col, QUADS: tl.constexpr):
    """Two float64 sums for each program; they are added outside, in one order whatever the schedule was."""
    program = tl.program_id(0).to(tl.int64)
    row = program // programs_across
    quad = (program % programs_across) * QUADS + tl.arange(0, QUADS)
    x0, x1, x2, x3 = _load_quads(weight, row, quad, cols, stride_row, stride_col, QUADS)
    threshold = _second_smallest(x0, x1, x2, x3)
    p0, q0 = _inner_products(x0, threshold)
    p1, q1 = _inner_products(x1, threshold)
    p2, q2 = _inner_products(x2, threshold)
    p3, q3 = _inner_products(x3, threshold)
    tl.store(sums + program * 2, tl.sum((p0 + p1) + (p2 + p3)))
    tl.store(sums + program * 2 + 1, tl.sum((q0 + q1) + (q2 + q3)))


# Tiles are the fastest of a sweep on an H200 (benchmarks/operators24.py); they matter by a few per cent.


def soft_threshold24_triton(weight: Tensor, beta: Tensor, *, quads: int = 256, num_warps: int | None = None) -> Tensor:
    """See ``planish_kernels.soft_threshold24.soft_threshold24``; ``weight [rows, cols]``."""
    rows, cols = weight.shape
    num_warps = num_warps or (4 if weight.element_size() == 2 else 8)  # sixteen bytes a thread
    out = torch.empty((rows, cols), dtype=weight.dtype, device=weight.device)
    if out.numel() == 0:
        return out
    programs_across = triton.cdiv(cols // 4, quads)
    with torch.cuda.device_of(weight):
        _soft_threshold_kernel[(programs_across * rows,)](
            weight, out, beta, cols, programs_across, *weight.stride(), QUADS=quads, num_warps=num_warps
        )
    return out


def mse_scale_sums_triton(weight: Tensor, *, quads: int | None = None, num_warps: int = 2) -> Tensor:
    """float64 ``[2]``: the inner product of the weight with its thresholded form, and that form's squared norm."""
    rows, cols = weight.shape
    if weight.numel() == 0:
        return torch.zeros(2, dtype=torch.float64, device=weight.device)
    quads = quads or (1024 if weight.element_size() == 2 else 256)
    programs_across = triton.cdiv(cols // 4, quads)
    sums = torch.empty((programs_across * rows, 2), dtype=torch.float64, device=weight.device)
    with torch.cuda.device_of(weight):
        _mse_scale_kernel[(programs_across * rows,)](
            weight, sums, cols, programs_across, *weight.stride(), QUADS=quads, num_warps=num_warps
        )
    return sums.sum(dim=0)
