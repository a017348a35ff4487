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
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planish_kernels.benchmarks.copy_bandwidth import copies_of, measured_bandwidth
from planish_kernels.benchmarks.operators24_cases import Case, cases
from planish_kernels.benchmarks.stream_timing import ROTATED_BYTES, GraphedCalls, interleave

COPY = "copy of the same bytes"
Function = Callable[..., Any]


def agrees(ours: Any, reference: Any, tolerance: float) -> bool:
    """Whether tensors are equal, or float tensors close where the tolerance is above 0."""
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
    compare = case.agrees or functools.partial(agrees, tolerance=case.tolerance)
    return None if compare(case.ours(*first), reference) else "differs from the reference"


def _input_sets(case: Case, device: torch.device) -> list[tuple[Tensor, ...]]:
    """As many sets of inputs as it takes that the L2 cannot hold them."""
    count = min(12, max(2, -(-ROTATED_BYTES // case.traffic))) if device.type == "cuda" else 1
    return [case.inputs(device) for _ in range(count)]


def measure(case: Case, device: torch.device, rounds: int, notes: list[str]) -> dict[str, Any]:
    """One row: ours, the peers that run, and a copy of as many bytes. ``floor`` is set by ``settle_floors``."""
    sets = _input_sets(case, device)

    def graphed(function: Function) -> GraphedCalls:
        return GraphedCalls([functools.partial(function, *inputs) for inputs in sets])

    variants = {"ours": graphed(case.ours)}
    for name, peer in case.peers.items():
        try:
            variants[name] = graphed(peer)
        except Exception as error:
            notes.append(f"{case.name}: the peer {name!r} did not run: {type(error).__name__}: {str(error)[:300]}")
    copies = copies_of(case.traffic, len(sets), device)
    times = interleave({**variants, **copies}, rounds)
    ours = times.pop("ours")
    way = min(copies, key=lambda name: times[name]["median"])
    copy = {name: times.pop(name) for name in copies}[way]
    times = {COPY: copy, **times}
    against = case.against if case.against in times else COPY
    row: dict[str, Any] = {
        "case": case.name,
        "metric": "time",
        "unit": "ms",
        "better": "lower",
        "ours": ours,
        "peers": times,
        "floor": copy["median"],
        "gain": times[against]["median"] / ours["median"],
        "against": against,
        "target": case.target,
        "extra": {"bytes": case.traffic, "terabytes_per_second": case.traffic / ours["median"] / 1e9, "copied by": way},
    }
    row["extra"]["share of a copy"] = copy["median"] / ours["median"]
    for name in case.peers:
        if name in times:
            row["extra"][f"gain against {name}"] = times[name]["median"] / ours["median"]
    return row


def _ratios(row: dict[str, Any]) -> str:
    shown = {key: value for key, value in row["extra"].items() if key.startswith(("gain", "share"))}
    return ", ".join(f"{key} {value:.2f}" for key, value in shown.items())


def settle_floors(rows: list[dict[str, Any]], bandwidth: float) -> None:
    """No time is below a floor: the bytes at the best rate at which anything was copied in this run."""
    for row in rows:
        bandwidth = max(bandwidth, row["extra"]["bytes"] / row["peers"][COPY]["median"])
    for row in rows:
        row["floor"] = row["extra"]["bytes"] / bandwidth


def sweep(case: Case, device: torch.device, notes: list[str]) -> list[dict[str, float]]:
    """The five fastest tiles of the case's launcher; every tile is printed when it has been timed."""
    assert case.launcher is not None
    sets = _input_sets(case, device)
    found: list[dict[str, float]] = []
    for choice in itertools.product(*case.tiles.values()):
        tiles = dict(zip(case.tiles, choice, strict=True))
        shown = ", ".join(f"{name}={value}" for name, value in tiles.items())
        try:
            calls = GraphedCalls([functools.partial(case.launcher, *inputs, **tiles) for inputs in sets])
            calls.milliseconds(2)
            found.append({**tiles, "ms": min(calls.milliseconds(5) for _ in range(3))})
            print(f"  {shown}: {found[-1]['ms']:.4f} ms", flush=True)
        except Exception as error:
            notes.append(f"{case.name}: tiles {tiles}: {type(error).__name__}: {str(error)[:200]}")
            print(f"  {shown}: {type(error).__name__}", flush=True)
    return sorted(found, key=lambda tiles: tiles["ms"])[:5]


def _commit() -> str | None:
    """The commit of these sources; ``PLANISH_COMMIT`` says it for a copy of them that has no git folder."""
    try:
        git = ["git", "-C", str(Path(__file__).parent)]
        own = subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, timeout=10
        )
        answer = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("PLANISH_COMMIT") or None
    if own.returncode or answer.returncode:
        return os.environ.get("PLANISH_COMMIT") or None
    return answer.stdout.strip()


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


def main(
    arguments: list[str] | None = None,
    *,
    name: str = "operators24",
    about: str = __doc__ or "",
    of: Callable[[torch.device], Iterable[Case]] = cases,
) -> int:
    """Run the program; 0, or 1 if an operator failed or differs from its reference.

    Args:
        arguments: command line; None for that of the process.
        name: module of the program in this package, and name of the result.
        about: what it does, in its first line.
        of: the cases for a device.
    """
    parser = argparse.ArgumentParser(prog=name, description=about.splitlines()[0])
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
        "benchmark": name,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "hardware": hardware,
        "versions": _versions(),
        "command": f"python3 -m planish_kernels.benchmarks.{name} {' '.join(arguments or sys.argv[1:])}",
        "oracle_passed": True,
        "rows": [],
        "notes": [],
    }
    failed = False
    bandwidth = measured_bandwidth(device)
    print(f"the fastest copy: {bandwidth / 1e9:.2f} TB/s", flush=True)
    for case in (case for case in of(device) if options.only in case.name):
        try:
            wrong = check(case, device)
            if wrong is None:
                row = measure(case, device, options.rounds, result["notes"])
                result["rows"].append(row)
                print(f"{case.name}: {row['ours']['median']:.4f} ms", _ratios(row), flush=True)
                if options.sweep and is_cuda and case.launcher is not None:
                    settle_floors(result["rows"], bandwidth)
                    _write(options.json, result)  # a sweep takes minutes: keep what there is
                    row["extra"]["tiles"] = sweep(case, device, result["notes"])
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
        settle_floors(result["rows"], bandwidth)
        _write(options.json, result)
    if not result["rows"] and not result["notes"]:
        print(f"no case contains {options.only!r}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
