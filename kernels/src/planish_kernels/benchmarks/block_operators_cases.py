"""The operators on INT8 blocks on the shapes that they are timed on, beside their twins in compiled bfloat16.

A twin reads and writes two bytes where an operator reads and writes one. Gradients are timed alone: there a twin is the
formula that autograd would run, compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from planish_kernels.benchmarks.operators24_cases import Case, launcher
from planish_kernels.block_activation import block_activation, block_activation_backward
from planish_kernels.block_add import block_add
from planish_kernels.block_dropout import block_dropout
from planish_kernels.block_norm import block_norm, block_norm_backward, row_statistics
from planish_kernels.block_quantize import block_quantize
from planish_kernels.formats import BlockInt8
from planish_kernels.formats.block_scaled import BlockScaled

TARGET = 1.3
_DTYPE = torch.bfloat16
_P = 0.1
Inputs = Callable[[torch.device], tuple[Tensor, ...]]


class Twins(NamedTuple):
    """What twins are called, and how they are made of plain torch."""

    name: str
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]


COMPILED = Twins("torch.compile, bfloat16", torch.compile)
PLAIN = Twins("torch, bfloat16", lambda function: function)


def agrees(ours: Any, reference: Any) -> bool:
    """Whether codes differ by a step in at most two of a thousand places, and floats by 1e-4 of their norm.

    Kernel and reference round the same in all but the last bit of a transcendental function or of a sum; where a value
    lies on the edge between two codes, that decides.
    """
    pairs = zip(ours, reference, strict=True) if isinstance(ours, tuple) else [(ours, reference)]
    for got, expected in pairs:
        if got.dtype is not expected.dtype or got.shape != expected.shape:
            return False
        if got.dtype is torch.int8:
            steps = (got.int() - expected.int()).abs()
            if steps.max() > 1 or (steps > 0).float().mean() > 2e-3:
                return False
        elif not (got.double() - expected.double()).norm() <= 1e-4 * expected.double().norm():
            return False
    return True


def _int8(codes: Tensor, scales: Tensor, block: int) -> BlockInt8:
    return BlockInt8(codes, scales, block, _DTYPE)


def _parts(*operands: BlockScaled | None) -> tuple[Tensor, ...]:
    return tuple(tensor for one in operands if one is not None for tensor in (one.codes, one.scales))


def _operands(rows: int, cols: int, block: int, count: int, *extra: Callable[[torch.device], Tensor]) -> Inputs:
    """Codes and scales of ``count`` matrices, then the matrices in bfloat16, then what ``extra`` makes."""

    def make(device: torch.device) -> tuple[Tensor, ...]:
        dense = [torch.randn(rows, cols, device=device, dtype=_DTYPE) for _ in range(count)]
        encoded = [tensor for one in dense for tensor in block_quantize(one, torch.int8, block)]
        return *encoded, *dense, *(function(device) for function in extra)

    return make


def _tiles(block: int) -> dict[str, tuple[int, ...]]:
    """Tiles worth trying; a thread of the largest holds 256 elements with 4 warps, and 64 with 16."""
    return {"across": tuple(a for a in (1, 2, 4, 8) if a * block <= max(256, block)), "num_warps": (4, 8, 16)}


def _zero(device: torch.device) -> Tensor:
    return torch.zeros((), dtype=torch.int64, device=device)


def _quantize_in_torch(dense: Tensor, block: int) -> tuple[Tensor, Tensor]:
    rows, cols = dense.shape
    tiles = dense.float().view(rows // block, block, cols // block, block)
    scales = tiles.abs().amax((1, 3), keepdim=True).clamp_min(1e-30) / 127
    return torch.round(tiles / scales).to(torch.int8).view(rows, cols), scales.view(rows // block, cols // block)


def _quantize_cases(rows: int, cols: int, block: int, twins: Twins) -> Iterator[Case]:
    compiled = twins.wrap(functools.partial(_quantize_in_torch, block=block))
    for rounding in ("nearest", "stochastic"):
        yield Case(
            f"block_quantize/{rounding}/{rows}x{cols}/block{block}",
            lambda device: (torch.randn(rows, cols, device=device, dtype=_DTYPE), _zero(device), _zero(device)),
            lambda dense, seed, offset, rounding=rounding, **how: block_quantize(
                dense, torch.int8, block, rounding, seed, offset, **how
            ),
            3 * rows * cols,
            agrees=agrees,
            peers={f"{twins.name}, to nearest": lambda dense, *_: compiled(dense)},
            launcher=functools.partial(_launch_quantize, block, rounding == "stochastic"),
            tiles=_tiles(block),
        )


def _launch_quantize(
    block: int, stochastic: bool, dense: Tensor, seed: Tensor, offset: Tensor, **tiles: int
) -> tuple[Tensor, Tensor]:
    codes = torch.empty(dense.shape, dtype=torch.int8, device=dense.device)
    scales = dense.new_empty([-(-size // block) for size in dense.shape], dtype=torch.float32)
    launch = launcher("block_quantize", "block_quantize_triton")
    launch(dense, torch.int8, block, stochastic, seed, offset, codes, scales, **tiles)
    return codes, scales


def _gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(grad, x)


def _swiglu_backward(grad: Tensor, x: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    sigmoid = torch.sigmoid(x.float())
    value = x.float() * sigmoid
    slope = sigmoid * (1 + x.float() * (1 - sigmoid))
    return (grad.float() * up.float() * slope).to(grad.dtype), (grad.float() * value).to(grad.dtype)


def _activation_cases(rows: int, cols: int, block: int, twins: Twins) -> Iterator[Case]:
    label, elements = f"{rows}x{cols}/block{block}", rows * cols
    gelu, swiglu = twins.wrap(F.gelu), twins.wrap(lambda x, up: F.silu(x) * up)
    of_gelu, of_swiglu = twins.wrap(_gelu_backward), twins.wrap(_swiglu_backward)
    backward = launcher("block_activation", "block_activation_backward_triton")
    yield _case(
        twins,
        block,
        f"gelu/{label}",
        _operands(rows, cols, block, 1),
        lambda codes, scales, dense, **how: _parts(block_activation(_int8(codes, scales, block), **how)),
        2 * elements,
        lambda codes, scales, dense: gelu(dense),
        lambda codes, scales, dense, **tiles: launcher("block_activation", "block_activation_triton")(
            codes, scales, None, None, block, "gelu", **tiles
        ),
    )
    yield _case(
        twins,
        block,
        f"gelu backward/{label}",
        _operands(rows, cols, block, 2, _zero),
        lambda gc, gs, xc, xs, grad, x, zero, **how: _parts(
            *block_activation_backward(_int8(gc, gs, block), _int8(xc, xs, block), offset=zero, **how)
        ),
        3 * elements,
        lambda gc, gs, xc, xs, grad, x, zero: of_gelu(grad, x),
        lambda gc, gs, xc, xs, grad, x, zero, **tiles: backward(
            gc, gs, xc, xs, None, None, block, "gelu", False, True, zero, zero, **tiles
        )[:2],
    )
    yield _case(
        twins,
        block,
        f"swiglu/{label}",
        _operands(rows, cols, block, 2),
        lambda xc, xs, uc, us, x, up, **how: _parts(
            block_activation(_int8(xc, xs, block), _int8(uc, us, block), activation="silu", **how)
        ),
        3 * elements,
        lambda xc, xs, uc, us, x, up: swiglu(x, up),
        lambda xc, xs, uc, us, x, up, **tiles: launcher("block_activation", "block_activation_triton")(
            xc, xs, uc, us, block, "silu", **tiles
        ),
    )
    yield _case(
        twins,
        block,
        f"swiglu backward/{label}",
        _operands(rows, cols, block, 3, _zero),
        lambda gc, gs, xc, xs, uc, us, grad, x, up, zero, **how: _parts(
            *block_activation_backward(
                _int8(gc, gs, block), _int8(xc, xs, block), _int8(uc, us, block), activation="silu", offset=zero, **how
            )
        ),
        5 * elements,
        lambda gc, gs, xc, xs, uc, us, grad, x, up, zero: of_swiglu(grad, x, up),
        lambda gc, gs, xc, xs, uc, us, grad, x, up, zero, **tiles: backward(
            gc, gs, xc, xs, uc, us, block, "silu", False, True, zero, zero, **tiles
        ),
    )


def _rms_backward(grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    rstd = statistics[1][:, None]
    normal = x.float() * rstd
    inner = grad.float() * weight.float()
    along = (inner * normal).mean(1, keepdim=True)
    return (rstd * (inner - normal * along)).to(grad.dtype), (grad.float() * normal).sum(0)


def _layer_backward(grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, rstd = statistics[0][:, None], statistics[1][:, None]
    normal = (x.float() - mean) * rstd
    inner = grad.float() * weight.float()
    along, level = (inner * normal).mean(1, keepdim=True), inner.mean(1, keepdim=True)
    grad_x = (rstd * (inner - level - normal * along)).to(grad.dtype)
    return grad_x, (grad.float() * normal).sum(0), grad.float().sum(0)


def _norm_cases(rows: int, cols: int, block: int, kind: str, twins: Twins) -> Iterator[Case]:
    label, elements, is_rms = f"{rows}x{cols}/block{block}", rows * cols, kind == "rms"
    name = "RMSNorm" if is_rms else "LayerNorm"

    def weight(device: torch.device) -> Tensor:
        return torch.rand(cols, device=device) + 0.5

    def bias(device: torch.device) -> Tensor:
        return torch.randn(cols, device=device)

    def inputs(count: int) -> Inputs:
        made = _operands(rows, cols, block, count, weight, bias)

        def with_statistics(device: torch.device) -> tuple[Tensor, ...]:
            tensors = made(device)
            codes, scales = tensors[2 * count - 2 : 2 * count]
            return *tensors, row_statistics(_int8(codes, scales, block), kind)

        return with_statistics

    def whole(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if is_rms:
            return F.rms_norm(x, (cols,), weight.to(x.dtype), 1e-5)
        return F.layer_norm(x, (cols,), weight.to(x.dtype), bias.to(x.dtype), 1e-5)

    forward, backward = twins.wrap(whole), twins.wrap(_rms_backward if is_rms else _layer_backward)
    yield _case(
        twins,
        block,
        f"{name}/{label}",
        inputs(1),
        lambda xc, xs, x, w, b, statistics, **how: _parts(
            block_norm(_int8(xc, xs, block), statistics, w, None if is_rms else b, **how)
        ),
        2 * elements,
        lambda xc, xs, x, w, b, statistics: forward(x, w, b),
        lambda xc, xs, x, w, b, statistics, **tiles: launcher("block_norm", "block_norm_triton")(
            xc, xs, block, statistics, w, None if is_rms else b, **tiles
        ),
    )

    def ours(
        gc: Tensor, gs: Tensor, xc: Tensor, xs: Tensor, grad: Tensor, x: Tensor, w: Tensor, b: Tensor,
        statistics: Tensor, **how: Any,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        found = block_norm_backward(
            _int8(gc, gs, block), _int8(xc, xs, block), statistics, w, kind=kind, has_bias=not is_rms, **how
        )
        # The launcher gives an empty one.
        return *_parts(found.input), found.weight, found.weight.new_empty(0) if found.bias is None else found.bias

    yield _case(
        twins,
        block,
        f"{name} backward/{label}",
        inputs(2),
        ours,
        3 * elements,
        lambda gc, gs, xc, xs, grad, x, w, b, statistics: backward(grad, x, statistics, w),
        lambda gc, gs, xc, xs, grad, x, w, b, statistics, **tiles: launcher("block_norm", "block_norm_backward_triton")(
            gc, gs, xc, xs, block, statistics, w, not is_rms, is_rms, True, _zero(gc.device), _zero(gc.device), **tiles
        ),
    )


def _stream_cases(rows: int, cols: int, block: int, twins: Twins) -> Iterator[Case]:
    label, elements = f"{rows}x{cols}/block{block}", rows * cols

    def add_and_measure(residual: Tensor, branch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total = residual + branch
        variance, mean = torch.var_mean(total.float(), 1, correction=0)
        return total, mean, torch.rsqrt(variance + 1e-5)

    add, dropout = twins.wrap(add_and_measure), twins.wrap(lambda x: F.dropout(x, _P))

    def ours(codes: Tensor, scales: Tensor, branch: Tensor, residual: Tensor, **how: Any) -> tuple[Tensor, ...]:
        found = block_add(residual, _int8(codes, scales, block), **how)
        return found.total, *_parts(found.quantized), found.statistics

    yield _case(
        twins,
        block,
        f"add with statistics/{label}",
        _operands(rows, cols, block, 1, lambda device: torch.randn(rows, cols, device=device, dtype=_DTYPE)),
        ours,
        6 * elements,
        lambda codes, scales, branch, residual: add(residual, branch),
        lambda codes, scales, branch, residual, **tiles: launcher("block_add", "block_add_triton")(
            residual, codes, scales, block, False, 1e-5, False, _zero(codes.device), _zero(codes.device), **tiles
        ),
    )
    yield _case(
        twins,
        block,
        f"dropout/{label}",
        _operands(rows, cols, block, 1, _zero),
        lambda codes, scales, dense, zero, **how: _parts(
            block_dropout(_int8(codes, scales, block), _P, zero, zero, **how)
        ),
        2 * elements,
        lambda codes, scales, dense, zero: dropout(dense),
        lambda codes, scales, dense, zero, **tiles: launcher("block_dropout", "block_dropout_triton")(
            codes, scales, block, round(_P * 2**23), zero, zero, **tiles
        ),
    )


def _case(
    twins: Twins,
    block: int,
    name: str,
    inputs: Inputs,
    ours: Callable[..., Any],
    traffic: int,
    twin: Callable[..., Any],
    launch: Callable[..., Any],
) -> Case:
    return Case(
        name,
        inputs,
        ours,
        traffic,
        peers={twins.name: twin},
        against=twins.name,
        agrees=agrees,
        target=TARGET,
        launcher=launch,
        tiles=_tiles(block),
    )


def cases(device: torch.device) -> Iterator[Case]:
    """Every case; smaller ones on a CPU, beside twins that are not compiled."""
    rows, width = (8192, 4096) if device.type == "cuda" else (256, 256)
    twins = COMPILED if device.type == "cuda" else PLAIN
    for block in (32, 128):
        yield from _quantize_cases(rows, width, block, twins)
        yield from _activation_cases(rows, 4 * width, block, twins)
        for kind in ("layer", "rms"):
            yield from _norm_cases(rows, width, block, kind, twins)
        yield from _stream_cases(rows, width, block, twins)
