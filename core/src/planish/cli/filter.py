"""``planish filter``: score clips, decide which to keep, and show why."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli.options import read_options
from planish.cli.output import print_json, print_table
from planish.cli.session import Json, session
from planish.errors import ConfigError, DataError, UnsupportedError

if TYPE_CHECKING:
    from planish.filtering.funnel import Funnel
    from planish.filtering.run import RunSummary
    from planish.interfaces import DataFilter, FilterEngine
    from planish.plugins.registry import Registry


def filter(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH... | report DIR | decide DIR",
            help="Media files, folders, and manifests (.csv, .jsonl, .parquet) with the columns path, id, start_s, "
            "end_s, text, extra.NAME. Or: report DIR, decide DIR, with the folder of an earlier run.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--with", metavar="NAME", help="The data filter, as 'planish plugins' lists it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for scores and decisions.")] = None,
    engine: Annotated[str, typer.Option(help="What runs the filter: local, or such as ray.")] = "local",
    workers: Annotated[int | None, typer.Option(help="Worker processes; left out: one for each core.")] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long one clip may take; left out: 600.")
    ] = None,
    engine_set: Annotated[
        list[str] | None, typer.Option("--engine-set", metavar="KEY=VALUE", help="Another option of the engine.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Options of the filter: a YAML file. They belong to the scores.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One option of the filter; goes before --config."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Thresholds: a YAML file. They never make scores invalid.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Thresholds that belong together, by name.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first so many clips only.")] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Score clips again that an earlier run could not score.")
    ] = False,
    hash_sources: Annotated[
        bool, typer.Option("--hash-sources", help="Store the SHA-256 of each clip's file; reads the files once more.")
    ] = False,
    max_error_frac: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with 1 if a larger share of the clips could not be scored.")
    ] = 0.05,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no HTML page.")] = False,
    as_json: Json = False,
) -> None:
    """Score clips, decide which to keep, and write a report.

    Scores are kept apart from decisions: change the thresholds and decide
    again in seconds. The same command again scores only what is missing: after
    an interruption, or for clips that have been added.

    Example: planish filter clips/ --with egovid --out scored

    Example: planish filter clips.csv --with egovid --out scored --engine ray --workers 64

    Example: planish filter decide scored --policy policy.yaml

    Example: planish filter report scored

    In the folder of an earlier run, other clips take the place of its clips,
    whose scores stay and are used again when they come back. Another filter or
    other options get scores of their own beside the earlier ones. A file or
    folder that is called report or decide is given as ./report.
    """
    registry = session(context).registry
    if find_spec("pyarrow") is None:
        raise UnsupportedError(
            "planish filter needs pyarrow, which is not installed; run: pip install 'planish[filter]'"
        )
    if paths[0] in ("report", "decide"):
        scoring = {
            "--with": name, "--out": out, "--workers": workers, "--timeout": timeout, "--engine-set": engine_set,
            "--config": config, "--set": settings, "--limit": limit, "--retry-errors": retry_errors or None,
            "--hash-sources": hash_sources or None, "--engine": None if engine == "local" else engine,
        }  # fmt: skip
        folder = _earlier_run(paths, [option for option, value in scoring.items() if value is not None])
        if paths[0] == "report":
            _report(registry, folder, policy, preset, as_json)
        else:
            _decide(registry, folder, policy, preset, no_report, as_json)
        return
    if name is None or out is None:
        lacking = "--with NAME" if name is None else "--out DIR"
        raise ConfigError(f"{lacking} is missing; such as: planish filter {paths[0]} --with egovid --out scored")
    from planish.filtering import FilterIdentity
    from planish.filtering.manifest import find_clips
    from planish.filtering.policy import read_policy
    from planish.filtering.progress import ProgressBar
    from planish.filtering.run import score_clips
    from planish.filtering.store import claim_folder

    entry = registry.find(name, "data_filter")
    data_filter: DataFilter = registry.load(name, "data_filter")(read_options(config, settings or (), "--set"))
    runs_on = _engine(registry, engine, workers, timeout, engine_set or ())
    thresholds = read_policy(data_filter, policy, preset)
    claim_folder(out)  # before a long search for clips
    manifest = find_clips(paths, data_filter, limit)
    with _terminable(), ProgressBar(name, quiet=as_json) as progress:
        summary = score_clips(
            data_filter,
            manifest,
            out,
            runs_on,
            identity=FilterIdentity.of(data_filter, entry.distribution, entry.version),
            sources=paths,
            retry_errors=retry_errors,
            hash_sources=hash_sources,
            progress=progress,
        )
    funnel, page = _conclude(data_filter, out, thresholds, no_report)
    too_many = summary.errors > max_error_frac * summary.clips
    if as_json:
        print_json({**summary.to_dict(), **_decided(out, funnel, page), "exit_code": 1 if too_many else 0})
    else:
        _show_summary(summary)
        _show_decisions(out, funnel, page)
    if too_many:
        sys.stderr.write(
            f"error: {summary.errors} of {summary.clips} clips could not be scored, more than --max-error-frac "
            f"{max_error_frac:g} allows; the error column of the scores says why\n"
        )
        raise typer.Exit(1)


def _earlier_run(paths: Sequence[str], out_of_place: Sequence[str]) -> Path:
    verb = paths[0]
    if len(paths) != 2:
        raise ConfigError(
            f"planish filter {verb} takes the folder of one run, found {len(paths) - 1}; such as: planish filter "
            f"{verb} scored (for clips in a folder called {verb}: ./{verb})"
        )
    if out_of_place:
        raise ConfigError(f"planish filter {verb} scores nothing; leave out {', '.join(out_of_place)}")
    return Path(paths[1])


def _report(registry: Registry, folder: Path, policy: Path | None, preset: str | None, as_json: bool) -> None:
    if policy is not None or preset is not None:
        raise ConfigError(
            "planish filter report shows the decisions that there are; 'planish filter decide' decides again and "
            "writes the report too"
        )
    from planish.filtering import ScoreStore

    data_filter = _filter_of(registry, ScoreStore.open(folder))
    from planish.filtering.report import write_report

    page = write_report(folder, data_filter)
    if as_json:
        print_json({"report": str(page)})
    else:
        print(f"report: {page}")


def _decide(
    registry: Registry, folder: Path, policy: Path | None, preset: str | None, no_report: bool, as_json: bool
) -> None:
    from planish.filtering import ScoreStore
    from planish.filtering.policy import read_policy

    store = ScoreStore.open(folder)
    data_filter = _filter_of(registry, store)
    funnel, page = _conclude(data_filter, folder, read_policy(data_filter, policy, preset), no_report)
    if as_json:
        print_json({"folder": str(folder), "filter": data_filter.name, **_decided(folder, funnel, page)})
        return
    waiting = len(store.missing())
    if waiting:
        print(f"{waiting:,} clips have no scores yet and are not decided; the run was interrupted")
    _show_decisions(folder, funnel, page)


def _filter_of(registry: Registry, store: Any) -> DataFilter:
    """Return the filter that made the scores, with its options.

    Raises:
        PluginError: It is not installed.
        DataError: The installed one measures differently.
    """
    run = store.run
    kind = registry.load(run.filter, "data_filter")
    if kind.metric_version != run.metric_version:
        raise DataError(
            f"{store.folder} was scored by metric version {run.metric_version} of {run.filter}, and metric version "
            f"{kind.metric_version} is installed; score again, or install {run.distribution} {run.version}"
        )
    made: DataFilter = kind(run.params)
    return made


def _engine(
    registry: Registry, name: str, workers: int | None, timeout: float | None, settings: Sequence[str]
) -> FilterEngine:
    kind = registry.load(name, "filter_engine")
    options = read_options(None, settings, "--engine-set")
    for option, field, value in (("--workers", "workers", workers), ("--timeout", "timeout_s", timeout)):
        if value is None:
            continue
        if field not in kind.Config.model_fields:
            raise ConfigError(
                f"{option}: the engine {name!r} has no option {field}; 'planish describe {name}' lists its own"
            )
        options[field] = value
    made: FilterEngine = kind(options)
    return made


def _conclude(data_filter: DataFilter, folder: Path, policy: Any, no_report: bool) -> tuple[Funnel, Path | None]:
    """Decide all clips, and write the page."""
    from planish.filtering import ScoreStore
    from planish.filtering.decisions import decide_all

    funnel = decide_all(data_filter, ScoreStore.open(folder), policy)
    if no_report:
        return funnel, None
    from planish.filtering.report import write_report

    return funnel, write_report(folder, data_filter)


def _decided(folder: Path, funnel: Funnel, page: Path | None) -> dict[str, Any]:
    return {
        "kept": funnel.kept,
        "funnel": funnel.model_dump(mode="json"),
        "decisions": str(folder / "decisions.parquet"),
        "report": None if page is None else str(page),
    }


def _show_summary(summary: RunSummary) -> None:
    pace = "" if summary.clips_per_s is None else f" in {summary.wall_s:.0f} s ({summary.clips_per_s:.2g} clips/s)"
    before = f", {summary.reused:,} before" if summary.reused else ""
    print(f"{summary.clips:,} clips: {summary.scored:,} scored{pace}{before}")
    if summary.errors:
        print(f"{summary.errors:,} could not be scored:")
        for reason, count in summary.reasons.items():
            print(f"  {count:,} × {reason}")
    if summary.errors_reused:
        print(f"{summary.errors_reused:,} of them failed in an earlier run; --retry-errors tries them again")
    for folder in summary.unreadable:
        print(f"not looked into: {folder}")


def _show_decisions(folder: Path, funnel: Funnel, page: Path | None) -> None:
    print_table(funnel.table())
    print(f"decisions: {folder / 'decisions.parquet'}")
    if page is not None:
        print(f"report: {page}")


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat a request to terminate, such as a scheduler's, like Ctrl-C: keep what has been scored."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
