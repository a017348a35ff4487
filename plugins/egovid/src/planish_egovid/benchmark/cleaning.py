"""Whether cleaning helps: a video model trained on a mix of good and spoilt clips, and on what the pipeline keeps.

Clips of rendered rooms, half of them spoilt in known ways, are written as mp4 files, scored and decided by the whole
pipeline with its default policy. A tiny video model is then trained with the same seeds and number of steps on

* ``everything``: all clips;
* ``kept``: the clips that the pipeline keeps;
* ``random``: as many clips as it keeps, drawn at random with the run's seed;

and its loss is taken on clean clips of rooms and motions that none of them holds. Beside it stand precision and recall
of the decisions against the known faults, and what becomes of them as each rule is switched off.

Each run is one row of the result file, written as soon as it ends; a second call with the same settings continues.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from planish.benchmark import (
    BenchmarkOptions,
    BenchmarkResult,
    Measurement,
    Row,
    collect,
    read_result,
    write_result,
)
from planish.errors import ConfigError, PlanishError, UnsupportedError, WorkError

from planish_egovid.benchmark.cleaning_clips import KnownClip, MixSpec, known_clips, windows_source
from planish_egovid.benchmark.cleaning_decisions import Decided, decide_mix
from planish_egovid.benchmark.cleaning_rows import ARMS, compared, decision_notes, decision_rows, learning_notes
from planish_egovid.benchmark.cleaning_training import Source, Trained, TrainingSpec, agrees_with_float64, train

NAME = "egovid-cleaning"


@dataclass(frozen=True)
class Settings:
    """What decides the numbers; rows of other settings are not continued."""

    mix: MixSpec = field(default_factory=MixSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)


QUICK = Settings(
    MixSpec(clips=12, held_out=2),
    TrainingSpec(
        width=8, side=16, frames=4, batch=4, steps=8, warmup=2, checks=2, held_out_samples=16,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Clips, what the pipeline decides about them, and their frames."""

    clips: Sequence[KnownClip]
    decided: Decided
    source: Source
    held_out: Source

    @property
    def digest(self) -> str:
        """Stands for which clips are kept."""
        kept = sorted(name for name, keep in self.decided.kept.items() if keep)
        return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:16]

    def chosen(self, arm: str, seed: int) -> list[int]:
        """Return the places of the clips that an arm trains on."""
        kept = [place for place, known in enumerate(self.clips) if self.decided.kept[known.clip.id]]
        if arm == "kept":
            return kept
        if arm == "everything":
            return list(range(len(self.clips)))
        drawn = np.random.default_rng([seed, 41]).choice(len(self.clips), len(kept), replace=False)
        return sorted(drawn.tolist())


def prepare(settings: Settings, folder: Path, *, jobs: int, say: Callable[[str], None]) -> Data:
    """Render what is missing, decide it, and decode frames to train on.

    Raises:
        WorkError: The folder cannot be written, or the pipeline keeps nothing, so that there is nothing to compare.
        DataError: A file in the folder is damaged.
    """
    clips, clean = known_clips(settings.mix, folder, jobs=jobs, say=say)
    decided = decide_mix(clips, folder / settings.mix.folder / f"scores-{len(clips)}", jobs=jobs)
    if not any(decided.kept.values()):
        raise WorkError("the pipeline keeps no clip of the mix, so no model can be trained on what it keeps")
    side, stride = settings.training.side, settings.training.stride
    return Data(clips, decided, windows_source(clips, side, stride), windows_source(clean, side, stride))


def run(
    settings: Settings,
    folder: Path,
    *,
    seeds: int = 3,
    path: Path | None = None,
    jobs: int = 1,
    command: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> BenchmarkResult:
    """Run what is missing, and return (and keep writing) the result.

    Args:
        settings: Sizes.
        folder: Keeps rendered clips and scores for the next call.
        seeds: How many seeds of each arm, from 0 on.
        path: The result file; rows in it with equal settings and decisions are kept. None keeps nothing.
        jobs: Processes that render, score or train at a time.
        command: What the result says it came from.
        say: Told one line after each run.

    Raises:
        ConfigError: ``seeds`` is below 1.
        WorkError: A file cannot be written, or a clip not be scored.
        DataError: A file in the folder, or the result file, is damaged.
    """
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}; expected at least 1")
    data = prepare(settings, folder, jobs=jobs, say=say)
    as_json = {**json.loads(json.dumps(asdict(settings))), "kept": data.digest}
    runs: dict[tuple[int, str], Row] = {}
    if path is not None and path.exists():
        for row in read_result(path).rows:
            if row.metric == "val_loss" and row.extra.get("settings") == as_json:
                runs[row.extra["seed"], row.extra["arm"]] = row
    frame = collect(NAME, [], oracle_passed=agrees_with_float64(), command=command)
    decisions = list(decision_rows(data.decided))

    def keep(done: Row | None = None) -> BenchmarkResult:
        if done is not None:
            runs[done.extra["seed"], done.extra["arm"]] = done
            say(f"{done.case}: val_loss {done.ours.median:.5f}, {done.extra['seconds']:.0f} s")
        trained = compared(runs)
        notes = [*decision_notes(data.clips, data.decided), *learning_notes(trained)]
        result = frame.model_copy(update={"rows": [*decisions, *trained], "notes": notes})
        if path is not None:
            write_result(result, path)
        return result

    missing = [(seed, arm) for seed in range(seeds) for arm in ARMS if (seed, arm) not in runs]
    result = keep()
    for row in _trained(data, settings, missing, as_json, jobs):
        result = keep(row)
    return result


def _trained(
    data: Data, settings: Settings, missing: Sequence[tuple[int, str]], as_json: Mapping[str, Any], jobs: int
) -> Iterator[Row]:
    """Yield the row of each run as it ends."""

    def row(seed: int, arm: str, found: Trained) -> Row:
        places = data.chosen(arm, seed)
        spoilt = sum(data.clips[place].fault is not None for place in places)
        return Row(
            case=f"trained on {arm}/seed{seed}",
            metric="val_loss",
            unit="mean squared error",
            better="lower",
            ours=Measurement.of([found.val_loss]),
            extra={
                **asdict(found), "arm": arm, "seed": seed, "clips": len(places), "spoilt": spoilt, "settings": as_json,
            },
        )  # fmt: skip

    def task(seed: int, arm: str) -> tuple[TrainingSpec, Source, Source, int]:
        return settings.training, data.source[data.chosen(arm, seed)], data.held_out, seed

    if jobs <= 1:
        for seed, arm in missing:
            yield row(seed, arm, train(*task(seed, arm)))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        pending: dict[Future[Trained], tuple[int, str]] = {
            pool.submit(train, *task(seed, arm)): (seed, arm) for seed, arm in missing
        }
        for done in as_completed(pending):
            yield row(*pending[done], done.result())


def bench(options: BenchmarkOptions) -> BenchmarkResult:
    """``planish bench egovid-cleaning``: three seeds of all arms, or with ``quick`` one of a tiny model.

    Raises:
        UnsupportedError: A device other than the processor is asked for.
    """
    if options.device != "cpu":
        raise UnsupportedError(f"{NAME} is an experiment for processors; run it with --device cpu")
    with TemporaryDirectory(prefix="planish-cleaning-") as folder:
        return run(
            QUICK if options.quick else Settings(),
            Path(folder),
            seeds=1 if options.quick else 3,
            command=options.command,
            say=print,
        )


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_egovid.benchmark.cleaning --clips DIR --json PATH``: 0 if all went well."""
    parser = argparse.ArgumentParser(prog="python3 -m planish_egovid.benchmark.cleaning", description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder that keeps rendered clips and their scores")
    parser.add_argument("--json", type=Path, help="result file; rows that are in it already are not run again")
    parser.add_argument("--plot", type=Path, help="draw the figure here (SVG) from the result")
    parser.add_argument("--quick", action="store_true", help="few clips, a tiny model, one seed: to see that it works")
    parser.add_argument("--seeds", type=int, help="how many seeds (3; with --quick 1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, a core each")
    parser.add_argument("--count", type=int, help="clips in the mix")
    parser.add_argument("--steps", type=int, help="training steps of each run")
    given = parser.parse_args(arguments)
    settings = QUICK if given.quick else Settings()
    if given.count is not None:
        settings = replace(settings, mix=replace(settings.mix, clips=given.count))
    if given.steps is not None:
        settings = replace(settings, training=replace(settings.training, steps=given.steps))
    seeds = given.seeds if given.seeds is not None else (1 if given.quick else 3)
    typed = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python3", "-m", "planish_egovid.benchmark.cleaning", *typed])
    try:
        result = run(
            settings, given.clips, seeds=seeds, path=given.json, jobs=given.jobs, command=command,
            say=lambda line: print(line, flush=True),
        )  # fmt: skip
        if given.plot is not None:
            from planish_egovid.benchmark.cleaning_plot import plot

            plot(result, given.plot)
    except PlanishError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for line in result.notes:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
