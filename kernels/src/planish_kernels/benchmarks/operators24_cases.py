"""The operators of 2:4 training on the shapes that they are timed on, with what a user would write in their place."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from planish_kernels.gated_activation import geglu, swiglu
from planish_kernels.mask24 import flip_count, pack_mask, rowwise_mask_bits, transposable_mask, transposable_mask_bits
from planish_kernels.mask24.patterns import transposable_patterns
from planish_kernels.masked_decay import masked_decay_
from planish_kernels.mvue24 import mvue24, mvue24_pack
from planish_kernels.soft_threshold24 import minimum_mse_scale, soft_threshold24

COMPILED = "torch.compile"
Function = Callable[..., Any]


@dataclass
class Case:
    """An operator on one shape and dtype."""

    name: str
    inputs: Callable[[torch.device], tuple[Tensor, ...]]
    ours: Function
    #: Bytes that one call must read and write.
    traffic: int
    #: What must be equal to ``ours(..., impl="reference")``, and how closely.
    tolerance: float = 0.0
    peers: dict[str, Function] = field(default_factory=dict)
    #: The peer that the gain refers to; None: a copy of the same bytes.
    against: str | None = None
    #: Compares ``ours`` with the reference in place of ``tolerance``.
    agrees: Callable[[Any, Any], bool] | None = None
    #: The gain that was asked for: against a copy, a share of its bandwidth.
    target: float | None = None
    #: Launcher in ``triton.py`` with the tile parameters to try under ``--sweep``.
    launcher: Function | None = None
    tiles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def _normal(shape: tuple[int, ...], dtype: torch.dtype, count: int = 1) -> Callable[[torch.device], tuple[Tensor, ...]]:
    return lambda device: tuple(torch.randn(shape, device=device, dtype=dtype) for _ in range(count))


def launcher(module: str, name: str, *options: Any) -> Function:
    """A launcher of ``planish_kernels.<module>.triton``, imported when it is first called."""

    def launch(*tensors: Tensor, **tiles: int) -> Any:
        function = getattr(importlib.import_module(f"planish_kernels.{module}.triton"), name)
        return function(*tensors, *options, **tiles)

    return launch


def _mask_by_matmul(weight: Tensor, patterns: Tensor) -> Tensor:
    """What a user would write: score the ninety patterns with a matmul, take the best."""
    rows, cols = weight.shape
    blocks = weight.abs().view(rows // 4, 4, cols // 4, 4).transpose(1, 2).reshape(-1, 16)
    best = (blocks @ patterns.view(90, 16).to(weight.dtype).t()).argmax(1)
    return patterns[best].view(rows // 4, cols // 4, 4, 4).transpose(1, 2).reshape(rows, cols)


def _mvue_by_torch(grad: Tensor) -> Tensor:
    """The common approximation in torch: two places drawn one after the other with ``torch.rand``."""
    tokens, channels = grad.shape
    x = grad.float().view(tokens // 4, 4, channels)
    a = x.abs() + 1.19e-7
    total = a.sum(1, keepdim=True)
    odds = (a / total) / (total - a)
    probability = a / total + a * (odds.sum(1, keepdim=True) - odds)
    scores = a / -torch.log(torch.rand_like(a))  # exponential races: the two winners are a draw without replacement
    second = scores.topk(2, dim=1).values[:, 1:2]
    return torch.where(scores >= second, x / probability, 0).to(grad.dtype).view(tokens, channels)


def _mask_cases(rows: int, cols: int, dtype: torch.dtype) -> Iterator[Case]:
    label, size, weights = f"{rows}x{cols}/{str(dtype)[6:]}", dtype.itemsize, rows * cols
    tiles = {"pairs": (64, 128, 256, 512), "num_warps": (2, 4, 8)}
    patterns = functools.cache(lambda device: transposable_patterns().to(device))
    compiled = torch.compile(_mask_by_matmul)
    by_matmul = {f"{COMPILED}, matmul with 90 patterns": lambda w: compiled(w, patterns(w.device))}
    yield Case(
        f"transposable_mask_bits/{label}",
        _normal((rows, cols), dtype),
        transposable_mask_bits,
        weights * size + weights // 8,
        peers=by_matmul,
        target=0.6,
        launcher=launcher("mask24", "transposable_mask_triton", True),
        tiles=tiles,
    )
    yield Case(
        f"transposable_mask/{label}",
        _normal((rows, cols), dtype),
        transposable_mask,
        weights * size + weights,
        peers=by_matmul,
        target=0.6,
        launcher=launcher("mask24", "transposable_mask_triton", False),
        tiles=tiles,
    )
    yield Case(
        f"rowwise_mask_bits/{label}",
        _normal((rows, cols), dtype),
        rowwise_mask_bits,
        weights * size + weights // 8,
        launcher=launcher("mask24", "rowwise_mask_triton", True),
        tiles=tiles,
    )


def _mvue_cases(tokens: int, channels: int, dtype: torch.dtype) -> Iterator[Case]:
    label, size, values = f"{tokens}x{channels}/{str(dtype)[6:]}", dtype.itemsize, tokens * channels

    def inputs(device: torch.device) -> tuple[Tensor, ...]:
        grad = torch.randn(tokens, channels, device=device, dtype=dtype)
        return grad, torch.tensor(1, device=device), torch.tensor(2, device=device)

    tiles = {"block_calls": (2, 4, 8, 16), "block_channels": (32, 64, 128), "num_warps": (4, 8)}
    compiled = torch.compile(_mvue_by_torch)
    yield Case(
        f"mvue24/{label}",
        inputs,
        mvue24,
        2 * values * size,
        peers={f"{COMPILED}, pair sampling": lambda grad, *_: compiled(grad)},
        launcher=launcher("mvue24", "mvue24_triton"),
        tiles=tiles,
    )
    yield Case(
        f"mvue24_pack/{label}",
        inputs,
        mvue24_pack,
        values * size + values * size // 2 + values // 8,
        peers={
            f"{COMPILED}, pair sampling, dense": lambda grad, *_: compiled(grad),
            "grad.t().contiguous()": lambda grad, *_: grad.t().contiguous(),
        },
        launcher=launcher("mvue24", "mvue24_pack_triton"),
        tiles=tiles,
    )


def _decay_case(rows: int, cols: int, dtype: torch.dtype) -> Case:
    def inputs(device: torch.device) -> tuple[Tensor, ...]:
        grad, weight = (torch.randn(rows, cols, device=device, dtype=dtype) for _ in range(2))
        mask = torch.rand(rows, cols, device=device) < 0.5
        return grad, weight, pack_mask(mask), mask

    compiled = torch.compile(lambda grad, weight, mask: grad.add_(torch.where(mask, 0, weight), alpha=1e-4))
    launch = launcher("masked_decay", "masked_decay_triton", 1e-4, None)
    return Case(
        f"masked_decay_/{rows}x{cols}/{str(dtype)[6:]}",
        inputs,
        lambda grad, weight, bits, mask, **options: masked_decay_(grad, weight, bits, 1e-4, **options),
        rows * cols * dtype.itemsize * 3 + rows * cols // 8,
        tolerance=2.0**-6 if dtype is torch.bfloat16 else 2.0**-20,
        peers={f"{COMPILED}, boolean mask": lambda grad, weight, bits, mask: compiled(grad, weight, mask)},
        launcher=lambda grad, weight, bits, mask, **tiles: launch(grad, weight, bits, **tiles),
        tiles={"octets": (64, 128, 256, 512), "num_warps": (2, 4, 8)},
    )


def _soft_cases(rows: int, cols: int, dtype: torch.dtype) -> Iterator[Case]:
    label, weights = f"{rows}x{cols}/{str(dtype)[6:]}", rows * cols

    def inputs(device: torch.device) -> tuple[Tensor, ...]:
        return torch.randn(rows, cols, device=device, dtype=dtype), torch.tensor(1.482, device=device)

    def by_torch(weight: Tensor, beta: Tensor) -> Tensor:
        groups = weight.float().view(rows, cols // 4, 4)
        threshold = groups.abs().sort(-1).values[..., 1:2]
        shrunk = torch.copysign((groups.abs() - threshold).clamp(min=0), groups)
        return (beta * shrunk).to(weight.dtype).view(rows, cols)

    tiles = {"quads": (256, 512, 1024), "num_warps": (2, 4, 8)}
    yield Case(
        f"soft_threshold24/{label}",
        inputs,
        soft_threshold24,
        2 * weights * dtype.itemsize,
        peers={COMPILED: torch.compile(by_torch)},
        launcher=launcher("soft_threshold24", "soft_threshold24_triton"),
        tiles=tiles,
    )
    yield Case(
        f"minimum_mse_scale/{label}",
        _normal((rows, cols), dtype),
        minimum_mse_scale,
        weights * dtype.itemsize,
        tolerance=1e-5,
        launcher=launcher("soft_threshold24", "mse_scale_sums_triton"),
        tiles=tiles,
    )


def _gated_cases(tokens: int, cols: int, dtype: torch.dtype, column_major: bool) -> Iterator[Case]:
    layout = "column-major" if column_major else "row-major"
    label = f"{tokens}x{cols}/{str(dtype)[6:]}/{layout}"
    values, size = tokens * cols, dtype.itemsize

    def inputs(device: torch.device, count: int = 2) -> tuple[Tensor, ...]:
        if column_major:
            return tuple(torch.randn(cols, tokens, device=device, dtype=dtype).t() for _ in range(count))
        return tuple(torch.randn(tokens, cols, device=device, dtype=dtype) for _ in range(count))

    def gradients(function: Function) -> Function:
        def run(x: Tensor, gate: Tensor, grad: Tensor, **options: Any) -> tuple[Tensor, ...]:
            x, gate = x.detach().requires_grad_(), gate.detach().requires_grad_()
            return torch.autograd.grad(function(x, gate, **options), (x, gate), grad)

        return run

    def backward_alone(x: Tensor, gate: Tensor, grad: Tensor, impl: str = "auto") -> tuple[Tensor, ...]:
        return torch.ops.planish.gated_activation_backward(grad, x, gate, "silu", impl)

    close = 2.0**-6 if dtype is torch.bfloat16 else 2.0**-18
    for name, function, plain in (
        ("swiglu", swiglu, lambda x, gate: F.silu(gate) * x),
        ("geglu", geglu, lambda x, gate: F.gelu(gate) * x),
    ):
        yield Case(
            f"{name}/{label}",
            inputs,
            function,
            3 * values * size,
            tolerance=close,
            peers={COMPILED: torch.compile(plain)},
        )
        yield Case(
            f"{name} forward and backward/{label}",
            functools.partial(inputs, count=3),
            gradients(function),
            8 * values * size,
            tolerance=close,
            peers={COMPILED: gradients(torch.compile(plain))},
        )
    yield Case(
        f"swiglu backward alone/{label}",
        functools.partial(inputs, count=3),
        backward_alone,
        5 * values * size,
        tolerance=close,
    )


def _flip_case(rows: int, cols: int) -> Case:
    def inputs(device: torch.device) -> tuple[Tensor, ...]:
        return tuple(torch.randint(0, 256, (rows, cols // 8), device=device, dtype=torch.uint8) for _ in range(2))

    return Case(f"flip_count/{rows}x{cols}", inputs, flip_count, rows * cols // 4)


def cases(device: torch.device) -> Iterator[Case]:
    """Every case; smaller ones on a CPU."""
    big = device.type == "cuda"
    rows, cols, tokens = (4096, 16384, 16384) if big else (4096, 1024, 1024)
    dtypes = (torch.bfloat16, torch.float32) if big else (torch.float32,)
    for dtype in dtypes:
        yield from _mask_cases(rows, cols, dtype)
    for dtype in dtypes:
        yield from _mvue_cases(tokens, 4096 if big else 512, dtype)
    if big:
        yield from _mvue_cases(tokens, 16384, torch.bfloat16)
    for dtype in dtypes:
        yield _decay_case(rows, cols, dtype)
        yield from _soft_cases(rows, cols, dtype)
        for column_major in (False, True):
            yield from _gated_cases(tokens, 4096 if big else 512, dtype, column_major)
    yield _flip_case(rows, cols)
