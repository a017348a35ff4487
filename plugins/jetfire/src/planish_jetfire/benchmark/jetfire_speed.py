"""How fast INT8 training is: matmuls of blocks, operators, whole transformer blocks, INT8 2:4 networks.

Everything is first held against an oracle, then timed in one process, in turns with what a user would call instead; on
a GPU as CUDA graphs. On a CPU the reference runs, on small sizes: that shows that the program works, and how many bytes
are saved for backward; its times mean nothing.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from planish.benchmark import BenchmarkOptions, BenchmarkResult, Measurement, Row, collect, read_result, write_result
from planish.errors import ConfigError, PlanishError
from planish_kernels.benchmarks import block_matmul_tiles, block_operators_cases, operators24
from planish_kernels.benchmarks.copy_bandwidth import measured_bandwidth
from planish_kernels.formats import BlockFloat8, BlockInt8

from planish_jetfire.benchmark.block_rows import block_rows
from planish_jetfire.benchmark.matmul_rows import CEILING, layout_rows, matmul_rows
from planish_jetfire.benchmark.sparse_int8_ffn import ffn_rows
from planish_jetfire.benchmark.speed_oracle import oracle_failures

NAME = "jetfire"
SECTIONS = ("matmul", "operators", "block", "sparse")
_SECTION_OF = {
    "tiles": "matmul",
    "matmul": "matmul",
    "layouts": "matmul",
    "operators": "operators",
    "block": "block",
    "int8_sparse_ffn": "sparse",
}
"""First part of a case -> its section."""


@dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    matmuls: tuple[tuple[int, int, int], ...]
    layouts: tuple[int, int, int]
    families: tuple[str, ...]
    widths: tuple[int, ...]
    tokens: int
    length: int
    sparse_width: int
    sparse_tokens: int
    operator_blocks: tuple[int, ...]
    rounds: int


FULL = Settings(
    matmuls=((4096, 4096, 4096), (8192, 8192, 8192), (16384, 4096, 4096)), layouts=(8192, 4096, 4096),
    families=("llama", "gpt2"), widths=(4096, 2048), tokens=8192, length=2048, sparse_width=4096, sparse_tokens=8192,
    operator_blocks=(32, 128), rounds=15,
)  # fmt: skip
QUICK = Settings(
    matmuls=((4096, 4096, 4096),), layouts=(4096, 4096, 4096), families=("llama",), widths=(2048,), tokens=4096,
    length=1024, sparse_width=1024, sparse_tokens=4096, operator_blocks=(128,), rounds=5,
)  # fmt: skip
ON_CPU = Settings(
    matmuls=((128, 128, 256),), layouts=(128, 128, 256), families=("llama", "gpt2"), widths=(128,), tokens=128,
    length=64, sparse_width=64, sparse_tokens=64, operator_blocks=(128,), rounds=2,
)  # fmt: skip


def operator_rows(settings: Settings, device: str, notes: list[str]) -> Iterator[Row]:
    """Operators on INT8 blocks beside their compiled bfloat16 twins, with floors from the fastest copy."""
    where = torch.device(device)
    rows: list[dict[str, Any]] = []
    for case in block_operators_cases.cases(where):
        if not any(f"block{block}" in case.name for block in settings.operator_blocks):
            continue
        wrong = operators24.check(case, where)
        if wrong is not None:
            raise _WrongResultError(f"{case.name}: {wrong}")
        rows.append(operators24.measure(case, where, settings.rounds, notes))
        if where.type == "cuda":
            torch.cuda.empty_cache()
    operators24.settle_floors(rows, measured_bandwidth(where) if where.type == "cuda" else 0.0)
    for row in rows:
        yield Row.model_validate({**row, "case": f"operators/{row['case']}"})


class _WrongResultError(Exception):
    """An operator differs from its reference."""


def tile_rows(device: str, notes: list[str]) -> Iterator[Row]:
    """The fastest tile of the matmul kernel for each format and block, at 8192 cubed; the others are in ``extra``."""
    size = 8192
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for form in (BlockInt8, BlockFloat8):
        for block in (32, 64, 128):
            found = block_matmul_tiles.sweep(form.encode(left, block), form.encode(right, block).T, notes)
            if found:
                yield Row(
                    case=f"tiles/{size}x{size}x{size}/{form.__name__}/block{block}",
                    metric="time",
                    unit="ms",
                    better="lower",
                    ours=Measurement.of([found[0]["ms"]]),
                    floor=2e3 * size**3 / CEILING,
                    extra={"tiles": found},
                )


def run(
    settings: Settings,
    *,
    device: str,
    command: str,
    only: Sequence[str] = SECTIONS,
    sweeps: bool = False,
    path: Path | None = None,
    say: Callable[[str], None] = print,
) -> BenchmarkResult:
    """Check, then measure.

    Args:
        settings: Sizes.
        device: Where.
        command: What the result says it came from.
        only: Which of ``SECTIONS``.
        sweeps: Whether to try other tiles of the matmul kernel first (GPU).
        path: Result file, rewritten after each row; None writes nothing. What it holds of other sections from the same
            machine and commit is kept, so that a run can be cut into calls.
        say: Told one line for each row.

    Raises:
        ConfigError: A section is unknown, or a sweep is asked for without a GPU.
        WorkError: The file cannot be written.
    """
    for name in only:
        if name not in SECTIONS:
            raise ConfigError(f"section {name!r} is unknown; one of {', '.join(SECTIONS)}")
    on_gpu = device.startswith("cuda")
    if sweeps and not on_gpu:
        raise ConfigError(f"a sweep times tiles of GPU kernels, and {device} is no GPU; leave it out")
    failures = list(oracle_failures(torch.device(device)))
    for failure in failures:
        say(f"oracle: {failure}")
    notes: list[str] = []
    common: dict[str, Any] = {"device": device, "rounds": settings.rounds}
    noted: dict[str, Any] = {**common, "notes": notes}
    sections: list[tuple[str, Callable[[], Iterator[Row]]]] = []
    if sweeps:
        sections.append(("matmul", functools.partial(tile_rows, device, notes)))
    sections += [("matmul", functools.partial(matmul_rows, *shape, **noted)) for shape in settings.matmuls]
    sections.append(("matmul", functools.partial(layout_rows, *settings.layouts, **common)))
    sections.append(("sparse", functools.partial(ffn_rows, settings.sparse_width, settings.sparse_tokens, **noted)))
    sections += [
        ("block", functools.partial(block_rows, family, width, settings.tokens, settings.length, **noted))
        for width in settings.widths
        for family in settings.families
    ]
    sections.append(("operators", functools.partial(operator_rows, settings, device, notes)))
    rows: list[Row] = []
    if path is not None and path.exists():
        rows += _other_sections(read_result(path), only)

    def result() -> BenchmarkResult:
        return collect(
            NAME, rows, oracle_passed=not failures, command=command, notes=[*failures, *notes, *_shortfalls(rows)]
        )

    for name, section in sections:
        if name not in only:
            continue
        try:
            for row in section():
                if row.metric == "time" and not on_gpu:
                    row = row.model_copy(update={"gain": None, "target": None})
                rows.append(row)
                gain = "" if row.gain is None else f"  {row.gain:.2f}x of {row.against}"
                say(f"{row.case}: {row.metric} {row.ours.median:.4f} {row.unit}{gain}")
                if path is not None:
                    write_result(result(), path)
        except PlanishError:
            raise
        except Exception as error:
            # One section must not take the others down: a GPU is not at hand every day.
            text = f"section {name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            (failures if isinstance(error, _WrongResultError) else notes).append(text)
            say(text)
        if on_gpu:
            torch.cuda.empty_cache()
    finished = result()
    if path is not None:
        write_result(finished, path)
    return finished


def _other_sections(earlier: BenchmarkResult, only: Sequence[str]) -> list[Row]:
    """Rows of sections that are not measured now, where they were measured as these will be."""
    now = collect(NAME, [], oracle_passed=True)
    if (
        not earlier.oracle_passed
        or earlier.benchmark != NAME
        or (earlier.hardware, earlier.versions, earlier.commit) != (now.hardware, now.versions, now.commit)
    ):
        return []
    return [row for row in earlier.rows if _SECTION_OF.get(row.case.split("/")[0]) not in only]


def _shortfalls(rows: Sequence[Row]) -> Iterator[str]:
    """Where a target was missed."""
    for row in rows:
        if row.gain is not None and row.target is not None and row.gain < row.target:
            share = "" if row.floor is None else f", {100 * row.floor / row.ours.median:.0f} % of its roofline"
            yield f"{row.case}: {row.metric} {row.gain:.2f}x of {row.target}x asked for{share}"


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """``planish bench jetfire``."""
    say = functools.partial(print, file=sys.stderr)
    return run(_settings(options.device, options.quick), device=options.device, command=options.command, say=say)


def _settings(device: str, quick: bool) -> Settings:
    if not device.startswith("cuda"):
        return ON_CPU
    return QUICK if quick else FULL


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_jetfire.benchmark.jetfire_speed --json PATH``: 0; 1: an oracle failed; 2: wrong input."""
    parser = argparse.ArgumentParser(prog="python3 -m planish_jetfire.benchmark.jetfire_speed", description=__doc__)
    parser.add_argument("--json", type=Path, help="result file, rewritten after each row")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--only", default=",".join(SECTIONS), help="comma-separated sections")
    parser.add_argument("--sweep", action="store_true", help="also try other tiles of the matmul kernel (GPU)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    command = shlex.join(["python3", "-m", "planish_jetfire.benchmark.jetfire_speed", *(arguments or sys.argv[1:])])
    try:
        result = run(
            _settings(given.device, given.quick), device=given.device, command=command, only=given.only.split(","),
            sweeps=given.sweep, path=given.json, say=functools.partial(print, flush=True),
        )  # fmt: skip
    except PlanishError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if result.oracle_passed else 1


if __name__ == "__main__":
    sys.exit(main())
