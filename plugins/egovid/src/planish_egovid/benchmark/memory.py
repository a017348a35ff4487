"""``planish bench egovid-memory``: memory of the workers over ten thousand clips."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
from planish.benchmark import BenchmarkOptions, BenchmarkResult, Measurement, Row, collect
from planish.errors import UnsupportedError
from planish.filtering.local_engine import LocalEngine
from planish.interfaces import Clip, FilterJob

from planish_egovid.benchmark.walk_clips import walk_clips
from planish_egovid.filters import EgoVid

NAME = "egovid-memory"
CLIPS = 10_000
WORKERS = 2
POINTS = 100


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """Score short clips over and over and watch the resident memory of all processes.

    The median of the last tenth is held against that of the second: libraries and caches have filled by then, and what
    still grows is a leak. ``gain`` is earlier over later memory, 1 when flat.

    Raises:
        UnsupportedError: The system does not tell the memory of processes (no ``/proc``), or a GPU is asked for.
    """
    if options.device != "cpu":
        raise UnsupportedError("this benchmark is of processors: --device cpu")
    if not Path("/proc/self/statm").exists():
        raise UnsupportedError("this system has no /proc, which tells the memory of processes; run it on Linux")
    cv2.setNumThreads(1)
    clips, seconds = (200, 0.5) if options.quick else (CLIPS, 1.0)
    curve: list[tuple[int, float, float]] = []
    errors = done = 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        sources = walk_clips(Path(folder), 8, width=320, height=180, frames=int(30 * seconds))
        for rows in LocalEngine(workers=WORKERS).run(FilterJob.of(EgoVid()), _groups(sources, clips)):
            done += len(rows)
            errors += sum(row.error is not None for row in rows)
            if done >= (len(curve) + 1) * clips / POINTS:
                curve.append((done, _resident(os.getpid()), max(map(_resident, _children(os.getpid())))))
                if len(curve) % 10 == 0:
                    _say(f"{done} clips: parent {curve[-1][1]:.0f} MiB, largest worker {curve[-1][2]:.0f} MiB")
    wall = time.perf_counter() - start
    tenth = max(1, len(curve) // 10)
    measured: list[Row] = []
    for place, name in ((1, "parent"), (2, "largest worker")):
        early = median(point[place] for point in curve[tenth : 2 * tenth])
        late = median(point[place] for point in curve[-tenth:])
        measured.append(
            Row.compare(
                f"{name} after {clips} clips",
                Measurement.of([late]),
                {f"after {curve[2 * tenth - 1][0]} clips": Measurement.of([early])},
                against=f"after {curve[2 * tenth - 1][0]} clips",
                metric="resident memory",
                unit="MiB",
                extra={"clips": [point[0] for point in curve], "MiB": [round(point[place], 1) for point in curve]},
            )
        )
    notes = [f"{done} clips of {seconds:g} s at 320 x 180, all axes, {WORKERS} workers, {wall:.0f} s, {errors} errors."]
    passed = done == clips and errors == 0
    return collect(NAME, measured, oracle_passed=passed, command=options.command, notes=notes)


def _groups(sources: Sequence[Clip], clips: int) -> Iterator[Sequence[Clip]]:
    for first in range(0, clips, 8):
        source = sources[(first // 8) % len(sources)]
        yield [replace(source, id=f"{source.id}-{first + i}") for i in range(min(8, clips - first))]


def _resident(process: int) -> float:
    """Return the resident memory of a process in MiB; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _children(process: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            direct = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *_children(child)]
    return found or [process]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
