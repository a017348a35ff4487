"""Times the operators of 2:4 training against a copy of the same bytes and against compiled torch.

``python3 -m planish_kernels.benchmarks.operators24 --json PATH [--only TEXT] [--sweep]``. On a machine without a GPU it
times the CPU paths on smaller shapes. An operator whose result differs from its reference has no row; the reason is in
``notes``, as is the error of an operator that does not run.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from planish_kernels.benchmarks.stream_timing import ROTATED_BYTES, GraphedCalls, interleave
from planish_kernels.gated_activation import geglu, swiglu
from planish_kernels.mask24 import flip_count, pack_mask, rowwise_mask_bits, transposable_mask, transposable_mask_bits
from planish_kernels.mask24.patterns import transposable_patterns
from planish_kernels.masked_decay import masked_decay_
from planish_kernels.mvue24 import mvue24, mvue24_pack
from planish_kernels.soft_threshold24 import minimum_mse_scale, soft_threshold24

COPY = "copy of the same bytes"
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
    #: The share of a copy's bandwidth that was asked for.
    target: float | None = None
    #: Launcher in ``triton.py`` with the tile parameters to try under ``--sweep``.
    launcher: Function | None = None
    tiles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def _normal(shape: tuple[int, ...], dtype: torch.dtype, count: int = 1) -> Callable[[torch.device], tuple[Tensor, ...]]:
    return lambda device: tuple(torch.randn(shape, device=device, dtype=dtype) for _ in range(count))


def _launcher(module: str, name: str, *options: Any) -> Function:
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
        launcher=_launcher("mask24", "transposable_mask_triton", True),
        tiles=tiles,
    )
    yield Case(
        f"transposable_mask/{label}",
        _normal((rows, cols), dtype),
        transposable_mask,
        weights * size + weights,
        peers=by_matmul,
        target=0.6,
        launcher=_launcher("mask24", "transposable_mask_triton", False),
        tiles=tiles,
    )
    yield Case(
        f"rowwise_mask_bits/{label}",
        _normal((rows, cols), dtype),
        rowwise_mask_bits,
        weights * size + weights // 8,
        launcher=_launcher("mask24", "rowwise_mask_triton", True),
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
        launcher=_launcher("mvue24", "mvue24_triton"),
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
        launcher=_launcher("mvue24", "mvue24_pack_triton"),
        tiles=tiles,
    )


def _decay_case(rows: int, cols: int, dtype: torch.dtype) -> Case:
    def inputs(device: torch.device) -> tuple[Tensor, ...]:
        grad, weight = (torch.randn(rows, cols, device=device, dtype=dtype) for _ in range(2))
        mask = torch.rand(rows, cols, device=device) < 0.5
        return grad, weight, pack_mask(mask), mask

    compiled = torch.compile(lambda grad, weight, mask: grad.add_(torch.where(mask, 0, weight), alpha=1e-4))
    launch = _launcher("masked_decay", "masked_decay_triton", 1e-4, None)
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
        launcher=_launcher("soft_threshold24", "soft_threshold24_triton"),
        tiles=tiles,
    )
    yield Case(
        f"minimum_mse_scale/{label}",
        _normal((rows, cols), dtype),
        minimum_mse_scale,
        weights * dtype.itemsize,
        tolerance=1e-5,
        launcher=_launcher("soft_threshold24", "mse_scale_sums_triton"),
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


def _agrees(ours: Any, reference: Any, tolerance: float) -> bool:
    pairs = zip(ours, reference, strict=True) if isinstance(ours, tuple) else [(ours, reference)]
    for got, expected in pairs:
        if got.dtype is not expected.dtype or got.shape != expected.shape:
            return False
        if tolerance == 0.0 or not got.is_floating_point():
            if not torch.equal(got, expected):
                return False
        elif not torch.allclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance):
            return False
    return True


def check(case: Case, device: torch.device) -> str | None:
    """Compare the case with its oracle on this device; None, or what is wrong."""
    torch.manual_seed(0)
    inputs = case.inputs(device)
    first, second = (tuple(tensor.clone() for tensor in inputs) for _ in range(2))
    # Masks of float32 weights are decided by float32 sums; the CPU path adds in the same order as the kernel.
    is_mask_search = case.name.startswith("transposable_mask") and device.type == "cuda"
    if is_mask_search:
        reference = case.ours(*(tensor.cpu() for tensor in second), impl="cpu").to(device)
    else:
        reference = case.ours(*second, impl="reference")
    return None if _agrees(case.ours(*first), reference, case.tolerance) else "differs from the reference"


def measure(case: Case, device: torch.device, rounds: int, sweep: bool, notes: list[str]) -> dict[str, Any]:
    """One row: ours, the peers that run, and a copy of as many bytes."""
    copies = min(12, max(2, -(-ROTATED_BYTES // case.traffic))) if device.type == "cuda" else 1
    sets = [case.inputs(device) for _ in range(copies)]

    def graphed(function: Function) -> GraphedCalls:
        return GraphedCalls([functools.partial(function, *inputs) for inputs in sets])

    sources = [torch.zeros(case.traffic // 2, dtype=torch.uint8, device=device) for _ in range(copies)]
    targets = [torch.empty_like(source) for source in sources]
    copy = GraphedCalls([functools.partial(t.copy_, s) for t, s in zip(targets, sources, strict=True)])
    variants = {"ours": graphed(case.ours), COPY: copy}
    for name, peer in case.peers.items():
        try:
            variants[name] = graphed(peer)
        except Exception as error:
            notes.append(f"{case.name}: the peer {name!r} did not run: {type(error).__name__}: {str(error)[:300]}")
    times = interleave(variants, rounds)
    ours = times.pop("ours")
    row: dict[str, Any] = {
        "case": case.name,
        "metric": "time",
        "unit": "ms",
        "better": "lower",
        "ours": ours,
        "peers": times,
        "floor": times[COPY]["median"],
        "gain": times[COPY]["median"] / ours["median"],
        "against": COPY,
        "target": case.target,
        "extra": {"terabytes_per_second": case.traffic / ours["median"] / 1e9},
    }
    for name in case.peers:
        if name in times:
            row["extra"][f"gain against {name}"] = times[name]["median"] / ours["median"]
    if sweep and case.launcher is not None and device.type == "cuda":
        row["extra"]["tiles"] = _sweep(case, sets, notes)
    return row


def _sweep(case: Case, sets: list[tuple[Tensor, ...]], notes: list[str]) -> list[dict[str, float]]:
    """The five fastest tiles of the case's launcher."""
    assert case.launcher is not None
    found: list[dict[str, float]] = []
    for choice in itertools.product(*case.tiles.values()):
        tiles = dict(zip(case.tiles, choice, strict=True))
        try:
            calls = GraphedCalls([functools.partial(case.launcher, *inputs, **tiles) for inputs in sets])
            calls.milliseconds(2)
            found.append({**tiles, "ms": min(calls.milliseconds(5) for _ in range(3))})
        except Exception as error:
            notes.append(f"{case.name}: tiles {tiles}: {type(error).__name__}: {str(error)[:200]}")
    return sorted(found, key=lambda tiles: tiles["ms"])[:5]


def _commit() -> str | None:
    try:
        folder = Path(__file__).parent
        answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    try:
        versions["triton"] = importlib.import_module("triton").__version__
    except ImportError:
        versions["triton"] = "absent"
    return versions


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(beside, path)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; 0, or 1 if an operator failed or differs from its reference."""
    parser = argparse.ArgumentParser(prog="operators24", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="the file to write; rewritten after each row")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=11, help="samples of each variant")
    parser.add_argument("--sweep", action="store_true", help="also try other tile sizes (GPU)")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error(f"--rounds={options.rounds}: at least 2 are needed for a spread")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_cuda = device.type == "cuda"
    hardware = {
        "gpu": torch.cuda.get_device_name() if is_cuda else None,
        "gpus": torch.cuda.device_count() if is_cuda else 0,
        "cpu": platform.processor() or platform.machine(),
    }
    result: dict[str, Any] = {
        "benchmark": "operators24",
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "hardware": hardware,
        "versions": _versions(),
        "command": f"python3 -m planish_kernels.benchmarks.operators24 {' '.join(arguments or sys.argv[1:])}",
        "oracle_passed": True,
        "rows": [],
        "notes": [],
    }
    failed = False
    for case in (case for case in cases(device) if options.only in case.name):
        try:
            wrong = check(case, device)
            if wrong is None:
                result["rows"].append(measure(case, device, options.rounds, options.sweep, result["notes"]))
                row = result["rows"][-1]
                extra = {key: value for key, value in row["extra"].items() if key != "terabytes_per_second"}
                print(f"{case.name}: {row['ours']['median']:.4f} ms, {row['gain']:.2f} of a copy", extra, flush=True)
            else:
                failed, result["oracle_passed"] = True, False
                result["notes"].append(f"{case.name}: {wrong}; not timed")
                print(f"{case.name}: {wrong}", flush=True)
        except Exception as error:
            failed = True
            result["notes"].append(f"{case.name}: {type(error).__name__}: {str(error)[:500]}")
            traceback.print_exc()
        if is_cuda:
            torch.cuda.empty_cache()
        if not result["oracle_passed"]:
            for row in result["rows"]:
                row["gain"] = None  # a speed-up is not stated on a machine where an operator is wrong
        _write(options.json, result)
    if not result["rows"] and not result["notes"]:
        print(f"no case contains {options.only!r}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
