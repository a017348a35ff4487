"""The model backends on a GPU: CLIP ViT-L/14 and RAFT-large, clips a second, beside loops as in EgoVid's scripts.

Weights are random: no speed depends on their values, and none have to be downloaded. Clips are synthetic, of the size
that the released tables were made from (120 frames of 960x540 at 30 a second).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from planish.benchmark import BenchmarkOptions, BenchmarkResult, Row, collect, write_result
from planish.errors import PlanishError, UnsupportedError

from planish_egovid.benchmark import clip_rates, raft_rates
from planish_egovid.benchmark.clip_rates import ClipCase, ClipSizes, clip_rows
from planish_egovid.benchmark.decode_rates import decode_rows
from planish_egovid.benchmark.raft_rates import RaftCase, RaftSizes, large_raft, raft_rows

NAME = "egovid-models"


def run(
    *, device: str, quick: bool, command: str = "", path: Path | None = None, say: Callable[[str], None] = print
) -> BenchmarkResult:
    """Check both models against their references, then measure them.

    With ``path`` the result file is written anew after each row, so that a run that is cut keeps what it has measured.
    Without a GPU only ``quick`` runs, on tiny models, to see that the program works.

    Raises:
        UnsupportedError: The device is no GPU and ``quick`` is not set, or transformers is not installed.
    """
    on_gpu = device.startswith("cuda")
    if not on_gpu and not quick:
        raise UnsupportedError(
            f"the {NAME} benchmark measures GPUs, and {device} is none; --quick tries the program with tiny models"
        )
    if on_gpu and not torch.cuda.is_available():
        raise UnsupportedError(f"device is {device!r}, and torch {torch.__version__} sees no CUDA GPU")
    notes = ["Weights are random, of the published models' sizes: no speed depends on their values."]
    clip_sizes, raft_sizes = _sizes(on_gpu, quick)
    if not on_gpu:
        notes.append("Tiny models on a processor, to see that the program works: no figure here is a result.")
    rows: list[Row] = []
    faults: list[str] = []
    best: dict[str, float] = {}

    def result() -> BenchmarkResult:
        said = [*faults, *notes, *_shortfalls(rows)]
        found = collect(NAME, rows, oracle_passed=not faults, command=command, notes=said)
        if path is not None:
            write_result(found, path)
        return found

    def measure(name: str, found: Iterator[Row]) -> None:
        for row in found:
            if "/best" in row.case:
                best[name] = row.ours.median
                if not on_gpu:
                    continue  # tiny models beside a published rate would say nothing
            # Nor is there a gain of tiny models on a processor.
            rows.append(row if on_gpu else row.model_copy(update={"gain": None}))
            result()

    case = ClipCase(clip_sizes, device)
    faults += case.faults(torch.bfloat16)
    measure("clip", clip_rows(case, torch.bfloat16, say))
    del case
    if on_gpu:
        torch.cuda.empty_cache()
    try:
        model = large_raft() if on_gpu else _stand_in_raft()
    except UnsupportedError as error:
        notes.append(f"RAFT was not measured: {error}")
    else:
        flow = RaftCase(model, raft_sizes, device)
        faults += flow.faults()
        measure("raft", raft_rows(flow, say))
    if quick:
        rows += decode_rows(96, 160, 121, 2, clip_sizes.image, best)
    else:
        rows += decode_rows(540, 960, 120, 5, clip_sizes.image, best)
    for fault in faults:
        say(f"oracle: {fault}")
    return result()


def _sizes(on_gpu: bool, quick: bool) -> tuple[ClipSizes, RaftSizes]:
    if not on_gpu:
        return clip_rates.QUICK, raft_rates.QUICK
    if quick:
        return ClipSizes(batches=(64,), rounds=3), RaftSizes(pairs=(56,), rounds=2)
    return ClipSizes(), RaftSizes()


def _stand_in_raft() -> torch.nn.Module:
    from planish_egovid.testing.stand_in_raft import StandInRaft

    return StandInRaft()


def _shortfalls(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        if row.gain is not None and row.target is not None and row.gain < row.target:
            yield f"{row.case}: {row.gain:.2f}x of {row.target}x"


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """``planish bench egovid-models``."""
    return run(
        device=options.device,
        quick=options.quick,
        command=options.command,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_egovid.benchmark.model_backends --json PATH``: 0; 1: an oracle failed; 2: it cannot run."""
    parser = argparse.ArgumentParser(prog="python3 -m planish_egovid.benchmark.model_backends", description=__doc__)
    parser.add_argument("--json", type=Path, help="result file")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: to see that it works")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    command = f"planish bench {NAME} --device {given.device}" + (" --quick" if given.quick else "")
    try:
        result = run(device=given.device, quick=given.quick, command=command, path=given.json)
    except PlanishError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if result.oracle_passed else 1


if __name__ == "__main__":
    sys.exit(main())
