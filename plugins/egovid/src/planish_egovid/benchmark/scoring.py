"""``planish bench egovid``: clips a second of scoring on processors, by axis, by engine, and beside Data-Juicer."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
from planish.benchmark import BenchmarkOptions, BenchmarkResult, Measurement, Row, collect, interleave
from planish.errors import PluginError, UnsupportedError
from planish.filtering.local_engine import LocalEngine
from planish.interfaces import Clip, DataFilter
from planish.plugins.manager import default_registry

from planish_egovid.benchmark.data_juicer import VARIABLE, DataJuicerMotion, data_juicer_python
from planish_egovid.benchmark.engine_rates import steady_rate
from planish_egovid.benchmark.rate import rate, rate_row
from planish_egovid.benchmark.walk_clips import walk_clips
from planish_egovid.filters import EgoVid, Motion

NAME = "egovid"
TARGET_RATE = 1.6
"""Clips a second and core that were asked for, of default scoring at 960 x 540 and 120 frames."""
DECODE = "decoding alone, one thread"
DATA_JUICER = "Data-Juicer video_motion_score_filter"
PUBLISHED = {"flow": 3000 / 3600, "CLIP": 5000 / 3600, "DOVER": 10000 / 5400}
"""Clips a second that comments in EgoVid's scripts state for one GPU that they do not name."""
SETS: dict[str, tuple[str, ...]] = {
    "motion and clarity": ("motion", "clarity"),
    "motion, consistency, clarity": ("motion", "consistency", "clarity"),
    "all axes": ("motion", "consistency", "clarity", "text", "kinematics"),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurement."""

    clips: int = 8
    width: int = 960
    height: int = 540
    frames: int = 120
    rounds: int = 10
    engine_clips: int = 64
    engine_rounds: int = 3


QUICK = Sizes(clips=2, width=240, height=136, frames=24, rounds=2, engine_clips=6, engine_rounds=1)


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
        faults = list(_engines(clips, sizes, rows, notes))
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
    many = [replace(clips[i % len(clips)], id=f"clip{i:04d}") for i in range(sizes.engine_clips)]
    engines: dict[str, tuple[Any, int]] = {
        "1 process": (LocalEngine(workers=1), 1),
        "2 processes": (LocalEngine(workers=2), 2),
    }
    try:
        # Packs of 16 clips, as by default, would leave one of two workers idle for a good part of so short a run.
        on_ray = default_registry().load("ray", "filter_engine")({"workers": 2, "batch_size": 2})
        engines["Ray, 2 workers"] = (on_ray, 2)
    except PluginError as error:
        notes.append(f"Ray was not measured: {error}")
    samples: dict[str, list[float]] = {name: [] for name in engines}
    found: dict[str, dict[str, Any]] = {}
    for turn in range(sizes.engine_rounds):
        for name, (engine, workers) in engines.items():
            value, scored = steady_rate(engine, data_filter, many, workers)
            samples[name].append(value)
            found[name] = {row.clip_id: row for row in scored}
            _say(f"round {turn + 1}: {name}: {value:.3g} clips/s")
    measured: Mapping[str, Measurement] = {name: Measurement.of(values) for name, values in samples.items()}
    first = found["1 process"]
    yield from (f"{name} gives other rows than 1 process" for name, scored in found.items() if scored != first)
    pairs = [("2 processes", "1 process", 1.85)]
    if "Ray, 2 workers" in engines:
        pairs.append(("Ray, 2 workers", "2 processes", 0.9))
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
