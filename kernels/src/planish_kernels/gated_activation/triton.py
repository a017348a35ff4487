"""Gated activations in tiles, for any strides: sparse matmuls write column-major, where walking rows misses the L2."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.gated_activation.curve import activation_and_slope


@triton.jit
def _tile(tokens, cols, ROWS_FIRST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Token and column numbers of this program's tile. Neighbouring programs walk along the contiguous dimension."""
    program = tl.program_id(0)
    if ROWS_FIRST:
        across = tl.cdiv(cols, BLOCK_N)
        m, n = program // across, program % across
    else:
        across = tl.cdiv(tokens, BLOCK_M)
        m, n = program % across, program // across
    token = m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    col = n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    return token, col, (token < tokens) & (col < cols)


@triton.jit
def _forward_kernel(
    x,
    gate,
    out,
    tokens,
    cols,
    x_stride_m,
    x_stride_n,
    gate_stride_m,
    gate_stride_n,
    out_stride_m,
    out_stride_n,
    ACTIVATION: tl.constexpr,
    ROWS_FIRST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    token, col, inside = _tile(tokens, cols, ROWS_FIRST, BLOCK_M, BLOCK_N)
    g = tl.load(gate + token * gate_stride_m + col * gate_stride_n, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(x + token * x_stride_m + col * x_stride_n, mask=inside, other=0.0).to(tl.float32)
    activated, _ = activation_and_slope(g, ACTIVATION)
    tl.store(out + token * out_stride_m + col * out_stride_n, (activated * v).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    grad_output,
    x,
    gate,
    grad_x,
    grad_gate,
    tokens,
    cols,
    go_stride_m,
    go_stride_n,
    x_stride_m,
    x_stride_n,
    gate_stride_m,
    gate_stride_n,
    gx_stride_m,
    gx_stride_n,
    gg_stride_m,
    gg_stride_n,
    ACTIVATION: tl.constexpr,
    ROWS_FIRST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    token, col, inside = _tile(tokens, cols, ROWS_FIRST, BLOCK_M, BLOCK_N)
    grad = tl.load(grad_output + token * go_stride_m + col * go_stride_n, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + token * gate_stride_m + col * gate_stride_n, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(x + token * x_stride_m + col * x_stride_n, mask=inside, other=0.0).to(tl.float32)
    activated, slope = activation_and_slope(g, ACTIVATION)
    here = grad_x + token * gx_stride_m + col * gx_stride_n
    tl.store(here, (grad * activated).to(grad_x.dtype.element_ty), mask=inside)
    here = grad_gate + token * gg_stride_m + col * gg_stride_n
    tl.store(here, (grad * v * slope).to(grad_gate.dtype.element_ty), mask=inside)


def _blocks(out: Tensor, short: int, long: int) -> tuple[bool, int, int]:
    """Whether rows are walked first, and the tile ``[BLOCK_M, BLOCK_N]``: long where the output is contiguous."""
    rows_first = out.stride(1) <= out.stride(0)
    return (True, short, long) if rows_first else (False, long, short)


def gated_activation_triton(
    x: Tensor, gate: Tensor, out: Tensor, activation: str, *, short: int = 8, long: int = 256, num_warps: int = 4
) -> None:
    """``out = act(gate) * x``; three tensors ``[tokens, cols]`` of any strides."""
    tokens, cols = x.shape
    if x.numel() == 0:
        return
    rows_first, block_m, block_n = _blocks(out, short, long)
    with torch.cuda.device_of(x):
        _forward_kernel[(triton.cdiv(tokens, block_m) * triton.cdiv(cols, block_n),)](
            x,
            gate,
            out,
            tokens,
            cols,
            *x.stride(),
            *gate.stride(),
            *out.stride(),
            ACTIVATION=activation,
            ROWS_FIRST=rows_first,
            BLOCK_M=block_m,
            BLOCK_N=block_n,
            num_warps=num_warps,
        )


def gated_activation_backward_triton(
    grad_output: Tensor,
    x: Tensor,
    gate: Tensor,
    grad_x: Tensor,
    grad_gate: Tensor,
    activation: str,
    *,
    short: int = 8,
    long: int = 256,
    num_warps: int = 8,
) -> None:
    """Both gradients, the activation recomputed; five tensors ``[tokens, cols]`` of any strides."""
    tokens, cols = x.shape
    if x.numel() == 0:
        return
    rows_first, block_m, block_n = _blocks(grad_x, short, long)
    with torch.cuda.device_of(x):
        _backward_kernel[(triton.cdiv(tokens, block_m) * triton.cdiv(cols, block_n),)](
            grad_output,
            x,
            gate,
            grad_x,
            grad_gate,
            tokens,
            cols,
            *grad_output.stride(),
            *x.stride(),
            *gate.stride(),
            *grad_x.stride(),
            *grad_gate.stride(),
            ACTIVATION=activation,
            ROWS_FIRST=rows_first,
            BLOCK_M=block_m,
            BLOCK_N=block_n,
            num_warps=num_warps,
        )
