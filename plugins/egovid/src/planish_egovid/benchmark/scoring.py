"""``planish bench egovid``: clips a second of scoring on processors, by axis, by engine, and beside Data-Juicer."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
from planish.benchmark import BenchmarkOptions, BenchmarkResult, Measurement, Row, collect, interleave
from planish.errors import PluginError, UnsupportedError
from planish.filtering.local_engine import LocalEngine
from planish.interfaces import Clip, DataFilter
from planish.plugins.manager import default_registry

from planish_egovid.benchmark.data_juicer import VARIABLE, DataJuicerMotion, data_juicer_python
from planish_egovid.benchmark.engine_rates import EngineRun, steady_run
from planish_egovid.benchmark.rate import rate, rate_row
from planish_egovid.benchmark.walk_clips import walk_clips
from planish_egovid.filters import EgoVid, Motion

NAME = "egovid"
TARGET_RATE = 1.6
"""Clips a second and core that were asked for, of default scoring at 960 x 540 and 120 frames."""
DECODE = "decoding alone, one thread"
DATA_JUICER = "Data-Juicer video_motion_score_filter"
ONE, TWO = "1 process", "2 processes"
RAY: dict[str, dict[str, int]] = {"Ray, 2 workers": {}, "Ray, 2 workers, packs of 2 clips": {"batch_size": 2}}
"""Name -> options beside the workers: clips travel in packs of 16 by default; small packs show what a pack costs."""
NICENESS = "RAY_worker_niceness"
"""Environment variable of Ray's: 15 by default, so that its workers give way to whatever else wants a core."""
PUBLISHED = {"flow": 3000 / 3600, "CLIP": 5000 / 3600, "DOVER": 10000 / 5400}
"""Clips a second that comments in EgoVid's scripts state for one GPU that they do not name."""
SETS: dict[str, tuple[str, ...]] = {
    "motion and clarity": ("motion", "clarity"),
    "motion, consistency, clarity": ("motion", "consistency", "clarity"),
    "all axes": ("motion", "consistency", "clarity", "text", "kinematics"),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurement.

    Attributes:
        clips: Different clips.
        width: Of their pictures, in pixels.
        height: Of their pictures, in pixels.
        frames: Of each.
        rounds: Samples of each axis and peer.
        engine_clips: Clips that an engine gets, the different ones over and over, each in a file of its own.
        left_out: Clips at the beginning of an engine's run that do not count: a default pack of Ray's for each worker.
        engine_rounds: Runs of each engine.
    """

    clips: int = 8
    width: int = 960
    height: int = 540
    frames: int = 120
    rounds: int = 10
    engine_clips: int = 192
    left_out: int = 32
    engine_rounds: int = 3


QUICK = Sizes(clips=2, width=240, height=136, frames=24, rounds=2, engine_clips=6, left_out=2, engine_rounds=1)


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """Measure; every clip is decoded from its file each time, and nothing is kept between calls.

    Raises:
        UnsupportedError: A GPU is asked for; ``egovid-models`` measures what runs there.
    """
    if options.device != "cpu":
        raise UnsupportedError(
            "this benchmark is of processors: --device cpu (GPU backends: planish bench egovid-models)"
        )
    sizes = QUICK if options.quick else Sizes()
    cv2.setNumThreads(1)
    notes: list[str] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        _say(f"writing {sizes.clips} clips of {sizes.frames} frames, {sizes.width} x {sizes.height}")
        clips = walk_clips(Path(folder), sizes.clips, width=sizes.width, height=sizes.height, frames=sizes.frames)
        rows += _rates(clips, sizes, notes)
        faults = list(_engines(many_files(clips, sizes.engine_clips), sizes, rows, notes))
    notes += [f"{fault}" for fault in faults]
    notes.append(
        "Published for one GPU, not named: "
        + ", ".join(f"{name} {value:.2g} clips/s" for name, value in PUBLISHED.items())
        + " (comments in EgoVid's scripts)."
    )
    return collect(NAME, rows, oracle_passed=not faults, command=options.command, notes=notes)


def _rates(clips: Sequence[Clip], sizes: Sizes, notes: list[str]) -> Iterator[Row]:
    """One process, one thread: all ways in turn on the same clips."""
    work: dict[str, Callable[[], Any]] = {DECODE: _each(clips, _decode)}
    for name, axes in SETS.items():
        work[name] = _each(clips, _scores(EgoVid(axes=axes)))
    work["motion"] = _each(clips, _scores(Motion()))
    with ExitStack() as stack:
        peers = _data_juicer(stack, notes)
        work |= {name: _each(clips, _peer(peer)) for name, peer in peers.items()}
        times = interleave(work, rounds=sizes.rounds, warmup=1)
    named = {name: times[name] for name in (DECODE, *peers)}
    case = f"{sizes.frames} frames, {sizes.width}x{sizes.height}, one core"
    for name in (*SETS, "motion"):
        _say(f"{name}: {rate(times[name], 1).median:.3g} clips/s")
        against = next(iter(peers), DECODE) if name == "motion" else DECODE
        row = rate_row(
            f"{name}/{case}",
            {"ours": times[name], **named},
            dict.fromkeys(("ours", *named), 1),
            against=against,
            extra={"clips/s asked for": TARGET_RATE} if name == "motion and clarity" else {},
        )
        yield row.model_copy(update={"floor": rate(times[DECODE], 1).median})


def _data_juicer(stack: ExitStack, notes: list[str]) -> dict[str, DataJuicerMotion]:
    python = data_juicer_python()
    if python is None:
        notes.append(f"Data-Juicer is not installed here, nor named by {VARIABLE}: it was not measured.")
        return {}
    default = stack.enter_context(DataJuicerMotion(python))
    alike = stack.enter_context(DataJuicerMotion(python, sampling_fps=3.75, size=270))
    notes.append(
        f"py-data-juicer {default.version}: its defaults are Farneback at full size on 2 frames a second; 'as often, "
        "as small' is 3.75 frames a second at 480 x 270, the pairs and the size that our motion axis measures."
    )
    return {DATA_JUICER: default, f"{DATA_JUICER}, as often, as small": alike}


def _engines(clips: Sequence[Clip], sizes: Sizes, rows: list[Row], notes: list[str]) -> Iterator[str]:
    """Two processes beside one, Ray beside processes. Yields what is wrong with their rows."""
    data_filter = EgoVid(axes=SETS["motion, consistency, clarity"])
    engines: dict[str, Any] = {ONE: LocalEngine(workers=1), TWO: LocalEngine(workers=2)}
    pairs = [(TWO, ONE, 1.85)]
    try:
        build = default_registry().load("ray", "filter_engine")
        os.environ[NICENESS] = "0"
        notes.append(f"{NICENESS}=0: Ray's workers had the priority of the other processes, rather than a low one.")
        engines |= {name: build({"workers": 2, **options}) for name, options in RAY.items()}
        pairs += [(name, TWO, 0.9) for name in RAY]
    except PluginError as error:
        notes.append(f"Ray was not measured: {error}")
    runs: dict[str, list[EngineRun]] = {name: [] for name in engines}
    for turn in range(sizes.engine_rounds):
        for name, engine in engines.items():
            runs[name].append(steady_run(engine, data_filter, clips, sizes.left_out))
            _say(f"round {turn + 1}: {name}: {runs[name][-1].rate:.3g} clips/s")
    measured = {name: Measurement.of([run.rate for run in some]) for name, some in runs.items()}
    scored = {name: [{row.clip_id: row for row in run.rows} for run in some] for name, some in runs.items()}
    first = scored[ONE][0]
    yield from (f"{name} gives other rows than {ONE}" for name, some in scored.items() if any(x != first for x in some))
    notes.append(
        f"Engines: {sizes.engine_clips} clips each; the first {sizes.left_out} and what came with them do not count, "
        "nor does ending the workers. Seconds to the first row, and from the last row to the end: "
        + "; ".join(
            f"{name} {median(run.start_s for run in some):.1f} and {median(run.end_s for run in some):.1f}"
            for name, some in runs.items()
        )
        + "."
    )
    for name, against, target in pairs:
        rows.append(
            Row.compare(
                f"{name}, {sizes.engine_clips} clips",
                measured[name],
                {against: measured[against]},
                against=against,
                metric="rate",
                unit="clips/s",
                better="higher",
                target=target,
            )
        )


def many_files(clips: Sequence[Clip], count: int) -> list[Clip]:
    """Return these clips over and over until there are ``count``, each in a file of its own.

    Clips of one file are decoded together: two of them in one pack would cost less than two that come apart.
    """
    made = []
    for number in range(count):
        clip = clips[number % len(clips)]
        path = Path(clip.path).with_stem(f"clip{number:04d}")
        os.link(clip.path, path)
        made.append(replace(clip, id=path.stem, path=str(path)))
    return made


def _each(clips: Sequence[Clip], work: Callable[[Clip], Any]) -> Callable[[], Any]:
    """Return a call that takes the next clip each time, the same sequence for every way."""
    numbers = count()
    return lambda: work(clips[next(numbers) % len(clips)])


def _scores(data_filter: DataFilter) -> Callable[[Clip], Any]:
    return lambda clip: data_filter.score([clip])


def _peer(peer: DataJuicerMotion) -> Callable[[Clip], Any]:
    return lambda clip: peer(clip.path)


def _decode(clip: Clip) -> int:
    """Decode every frame, as a loop over PyAV does, and look at none."""
    with av.open(clip.path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        return sum(1 for _ in container.decode(stream))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
