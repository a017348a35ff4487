"""Writing the report page of a filter run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

from planish.atomic import write_text
from planish.errors import DataError
from planish.filtering.decisions import POLICY, read_decisions
from planish.filtering.funnel import Funnel, counted_rules, share
from planish.filtering.reason import reason_class
from planish.filtering.report.gallery import Decided, choose, groups, illustrate
from planish.filtering.report.histogram import DROPPED, KEPT, histograms
from planish.filtering.store import ScoreStore
from planish.interfaces.data_filter import Clip, DataFilter, Decision, Row
from planish.report.card import Card
from planish.report.html import render_page
from planish.report.units import duration

if TYPE_CHECKING:
    from planish.filtering.run_record import RunRecord

PAGE = Path("report") / "index.html"
_EXAMPLES = 3


@dataclass(frozen=True)
class ErrorClass:
    """Clips that could not be scored for the same reason."""

    reason: str
    clips: int
    examples: tuple[tuple[str, str], ...]
    """Clip and its own error."""


def write_report(
    folder: Path,
    data_filter: DataFilter,
    *,
    cards: int = 6,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Write ``report/index.html``: one file that needs nothing but itself.

    Pictures come from the filter's ``illustrate`` alone; a clip of which it cannot make any has a card all the same.

    Args:
        folder: Folder of a run whose scores have been decided.
        data_filter: The filter that made the scores.
        cards: Clips in each group of the gallery.
        progress: Called with how many clips have been illustrated, and how many there are.

    Returns:
        Path of the page.

    Raises:
        DataError: There are no scores or no decisions, or they do not belong together.
        ImportError: jinja2 or matplotlib is missing; both come with ``planish[report]``.
        WorkError: The folder cannot be written.
    """
    from markupsafe import Markup

    store = ScoreStore.open(folder)
    table, funnel = read_decisions(folder, store.identity)
    scores = store.table(["clip_id", "error"])
    if not scores["clip_id"].combine_chunks().equals(table["clip_id"].combine_chunks()):
        raise DataError(f"{folder} holds other scores than were decided; run 'planish filter decide' on it")
    keep = table["keep"].to_numpy()
    chosen = choose(_counted(table, scores["error"]), cards)
    wanted = {decision.clip_id for group in chosen.values() for decision in group}
    clips = store.clips()
    rows = _rows(store, data_filter, wanted)
    gallery = groups(funnel, chosen, {clip.id: clip for clip in clips if clip.id in wanted}, rows)
    illustrate(gallery, data_filter, rows, progress)
    drawn, flat = histograms(store, data_filter, keep, funnel.settled)
    charts = [(one, Markup(one.svg(f"histogram{place}", wide=bool(one.bounds)))) for place, one in enumerate(drawn)]
    hours = _hours(store, data_filter, clips, dict(zip(table["clip_id"].to_pylist(), keep.tolist(), strict=True)))
    text = render_page(
        "planish.filtering.report",
        "page.html.j2",
        run=store.run,
        identity=store.identity,
        summary=data_filter.summary,
        headlines=_headlines(store.run, funnel, hours, len(clips)),
        funnel=funnel,
        bars=_bars(funnel),
        overlap=_overlap(funnel),
        gallery=gallery,
        asked=[chart for chart in charts if chart[0].bounds],
        others=[chart for chart in charts if not chart[0].bounds],
        flat=flat,
        colours={"kept": KEPT, "dropped": DROPPED},
        errors=_errors(funnel, scores),
        policy=_yaml(funnel.policy),
        settled=_yaml(funnel.settled) if funnel.settled != funnel.policy else "",
        config=_yaml(store.run.params),
        engine=_yaml({"engine": store.run.engine, **store.run.engine_params}),
        folder=shlex.quote(str(folder)),
        policy_file=shlex.quote(str(folder / POLICY)),
        share=share,
    )
    write_text(folder / PAGE, text)
    return folder / PAGE


def _counted(table: pa.Table, errors: pa.ChunkedArray) -> Iterator[tuple[str | None, Decided]]:
    """Yield each scored clip's decision with the rule that it is counted under, or None if it is kept."""
    both = table.append_column("error", errors)
    for batch in both.to_batches(16_384):
        for row in batch.to_pylist():
            if row["error"] is None:
                rules = tuple(row["rules"])
                rule = None if row["keep"] else counted_rules(Decision(False, row["reason"], rules))[0]
                yield rule, Decided(row["clip_id"], row["keep"], row["reason"], rules)


def _rows(store: ScoreStore, data_filter: DataFilter, wanted: set[str]) -> dict[str, Row]:
    return {row.clip_id: row for row in store.rows(data_filter) if row.clip_id in wanted}


# -------------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class _Hours:
    total_s: float
    kept_s: float
    unknown: int


def _hours(store: ScoreStore, data_filter: DataFilter, clips: list[Clip], kept: dict[str, bool]) -> _Hours:
    """Return how long the clips are: by their ends, or else by a column ``duration_s`` if the filter has one."""
    measured: dict[str, float | None] = {}
    if "duration_s" in data_filter.Columns.model_fields:
        table = store.table(["clip_id", "duration_s"])
        measured = dict(zip(table["clip_id"].to_pylist(), table["duration_s"].to_pylist(), strict=True))
    total = kept_s = 0.0
    unknown = 0
    for clip in clips:
        length = measured.get(clip.id)
        if length is None and clip.end_s is not None:
            length = clip.end_s - clip.start_s
        if length is None:
            unknown += 1
            continue
        total += length
        kept_s += length if kept.get(clip.id) else 0.0
    return _Hours(total, kept_s, unknown)


def _headlines(run: RunRecord, funnel: Funnel, hours: _Hours, listed: int) -> list[Card]:
    waiting = listed - funnel.clips
    percent, _, _ = share(funnel.kept, funnel.clips).partition(" %")
    failed = funnel.failed / funnel.clips
    unscored = f"{share(funnel.failed, funnel.clips)} could not be scored" if funnel.failed else "every clip was scored"
    made = [
        Card("Clips", f"{funnel.clips:,}", detail=f"{waiting:,} more are not scored yet" if waiting > 0 else ""),
        Card("Kept", percent, "%", detail=f"{funnel.kept:,} clips"),
        Card(
            "Errors",
            f"{funnel.failed:,}",
            detail=unscored,
            verdict="good" if not funnel.failed else "fair" if failed <= 0.05 else "bad",
        ),
    ]
    if hours.total_s > 0:
        kept = f"{' '.join(duration(hours.kept_s))} kept"
        unknown = f"; {hours.unknown:,} clips of unknown length" if hours.unknown else ""
        made.append(Card("Video", *duration(hours.total_s), detail=kept + unknown))
    if run.clips_per_s is not None:
        took = f"{run.scored:,} clips in {' '.join(duration(run.wall_s))}, engine {run.engine}"
        made.append(Card("Speed", f"{run.clips_per_s:.3g}", "clips/s", detail=took))
    return made


@dataclass(frozen=True)
class _Bar:
    """A line of the funnel: what is taken away, and what is left, in percent of all clips."""

    name: str
    kind: str
    drops: int
    left: int
    alone: int | None
    any: int | None
    left_percent: float
    drops_percent: float


def _bars(funnel: Funnel) -> list[_Bar]:
    def bar(name: str, kind: str, drops: int, left: int, alone: int | None = None, any_: int | None = None) -> _Bar:
        whole = max(1, funnel.clips)
        return _Bar(name, kind, drops, left, alone, any_, 100 * left / whole, 100 * drops / whole)

    bars = [bar("all clips", "all", 0, funnel.clips)]
    if funnel.failed:
        bars.append(bar("could not be scored", "error", funnel.failed, funnel.clips - funnel.failed))
    bars += [bar(c.rule, "rule", c.first, c.left, c.alone, c.any) for c in funnel.rules]
    return [*bars, bar("kept", "kept", 0, funnel.kept)]


def _overlap(funnel: Funnel) -> list[tuple[str, list[tuple[str, int, int, str]]]]:
    """Return (rule, [(other rule, clips that both reject, depth of the colour in percent, in words)]).

    Reasons of rules without names do not overlap: a clip has one.
    """
    lines = []
    for one, counts in funnel.overlap.items() if funnel.named else ():
        cells = []
        for other, both in counts.items():
            part = both / max(1, counts[one])
            words = f"{share(both, counts[one])} of the clips that {one} rejects" if one != other else f"{one} rejects"
            cells.append((other, both, round(8 + 62 * part) if both else 0, words))
        lines.append((one, cells))
    return lines


def _errors(funnel: Funnel, scores: pa.Table) -> list[ErrorClass]:
    examples: dict[str, list[tuple[str, str]]] = {name: [] for name in funnel.errors}
    failed = scores.filter(scores["error"].is_valid())
    for clip_id, error in zip(failed["clip_id"].to_pylist(), failed["error"].to_pylist(), strict=True):
        found = examples.get(reason_class(error))
        if found is not None and len(found) < _EXAMPLES:
            found.append((clip_id, error))
    return [ErrorClass(name, count, tuple(examples[name])) for name, count in funnel.errors.items()]


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100).rstrip()
