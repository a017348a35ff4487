"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from planish.report import charts
from planish.report.card import Card
from planish.report.html import render_page
from planish.report.schema import Report, Series, Variant
from planish.report.units import duration, size

_MOST_CHARTS = 12


@dataclass(frozen=True)
class Chart:
    """A titled drawing."""

    title: str
    caption: str
    svg: Any
    wide: bool = False
    legend: tuple[int, ...] = ()


def render(report: Report) -> str:
    """Return the page of a report: no scripts, no fetches, light or dark as the reader's system is.

    Raises:
        ImportError: jinja2 or matplotlib is missing; both come with ``planish[report]``.
    """
    variants = list(report.variants.values())
    drawn, left_out = _charts(variants)
    return render_page(
        "planish.report",
        "page.html.j2",
        report=report,
        variants=variants,
        cards=_cards(variants),
        charts=drawn,
        left_out=left_out,
        changes=[(v, plan, changed(plan), skipped(plan)) for v in reversed(variants) for plan in v.plans],
        kernels=[(v, kernel_rows(v)) for v in reversed(variants) if v.kernels],
        weights=_weights(variants),
        figures=_figures(variants),
        notes=[(v, v.notes) for v in variants if v.notes],
        recipe=yaml.safe_dump(report.recipe, sort_keys=False, allow_unicode=True, width=100),
        story=_story(report),
    )


def _story(report: Report) -> str:
    """Return what ran, in a line: model, methods, machine."""
    model = report.recipe.get("model") or {}
    name = model.get("name") or model.get("path") or model.get("factory") or "model"
    used = [str(t.get("use")) for t in report.recipe.get("transforms") or () if isinstance(t, dict)]
    machine = report.hardware
    on = f"{machine.gpus} × {machine.gpu}" if machine.gpu else f"{machine.cpu or 'CPU'}, {machine.cores} cores"
    return f"{name} · {' + '.join(used) or 'no transforms'} · {on}"


# --------------------------------------------------------------------------------------------------------------- cards

_Format = Callable[[float], tuple[str, str]]


def _cards(variants: list[Variant]) -> list[Card]:
    if not variants:
        return []
    cards = [
        _card(variants, "Validation loss", "val_loss", _plain("nats", 4), lower=True, tolerance=0.03),
        _card(variants, "Perplexity", "val_perplexity", _plain("", 3), lower=True, tolerance=0.1),
        _card(variants, "Throughput", "tokens_per_s", lambda v: (f"{v:,.0f}", "tok/s"), lower=False, tolerance=0.1),
        _card(variants, "Step time (median)", "step_ms_p50", _plain("ms", 4), lower=True, tolerance=0.1),
        _card(variants, "Peak memory", "peak_memory_bytes", size, lower=True, tolerance=0.1),
        _card(variants, "Training time", "train_s", duration, lower=True, tolerance=0.1),
    ]
    return [card for card in cards if card is not None]


def _card(
    variants: list[Variant], label: str, key: str, show: _Format, *, lower: bool, tolerance: float
) -> Card | None:
    ours = getattr(variants[-1].summary, key)
    if ours is None or not math.isfinite(ours):
        return None if ours is None else Card(label, "diverged", verdict="diverged")
    value, unit = show(ours)
    theirs = getattr(variants[0].summary, key) if len(variants) > 1 else None
    if theirs is None or not math.isfinite(theirs) or theirs == 0:
        return Card(label, value, unit)
    worse = (ours / theirs - 1) * (1 if lower else -1)
    verdict = "good" if worse <= 0.001 else "fair" if worse <= tolerance else "bad"
    shown, shown_unit = show(theirs)
    name = variants[0].title or variants[0].name
    change = f"{100 * (ours / theirs - 1):+.1f} %"
    return Card(label, value, unit, change, f"against {shown} {shown_unit}".rstrip() + f" ({name})", verdict)


def _plain(unit: str, digits: int) -> _Format:
    return lambda value: (f"{value:#.{digits}g}".rstrip("."), unit)


def _figures(variants: list[Variant]) -> list[tuple[str, list[str]]]:
    """Return every summary figure as (name, one text per variant)."""
    names: dict[str, None] = {}
    for variant in variants:
        names |= dict.fromkeys(k for k, v in variant.summary.model_dump().items() if v is not None)
    return [
        (name.replace("_", " "), [_figure(name, v.summary.model_dump().get(name)) for v in variants]) for name in names
    ]


def _figure(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name.endswith("_bytes"):
        return " ".join(size(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.5g}"


# -------------------------------------------------------------------------------------------------------------- charts


def _charts(variants: list[Variant]) -> tuple[list[Chart], list[str]]:
    """Return the charts, and the names of metrics for which there was no room."""
    from markupsafe import Markup

    made: list[Chart] = []

    def line(title: str, caption: str, curves: Mapping[int, Series], dots: Mapping[int, Series], **how: Any) -> None:
        svg = charts.line_chart(curves, key=f"chart{len(made)}", dots=dots, **how)
        legend = tuple(sorted({*curves, *dots}))
        made.append(Chart(title, caption, Markup(svg), how.get("wide", False), legend))

    def bars(title: str, caption: str, rows: list[tuple[Variant, int, list[int]]]) -> None:
        rows = [row for row in rows if any(row[2])]
        if rows:
            labelled = [(v.title or v.name, place, [part / 2**20 for part in parts]) for v, place, parts in rows]
            svg = charts.bar_chart(labelled, key=f"chart{len(made)}", unit="MiB")
            made.append(Chart(title, caption, Markup(svg)))

    names = dict.fromkeys(name for v in variants for name in v.series)
    losses, validation = _curves(variants, "loss"), _curves(variants, "val_loss")
    if losses or validation:
        caption = "nats a token; line: training (smoothed), dots: validation"
        line("Loss", caption, losses, validation, smooth=charts.moving_average, wide=True)
    rates, others, by_part = _sorted_names(names)
    for name in rates:
        caption = "share of the mask that changes in a step; dense: of the mask that it would have"
        line("Flip rate" if len(rates) == 1 else name, caption, _curves(variants, name), {}, zero=True)
    late, late_validation = _second_half(losses), _second_half(validation)
    if late or late_validation:
        line("Loss, second half", "the same, closer", late, late_validation, smooth=charts.moving_average)
    if times := _curves(variants, "step_ms"):
        line("Step time", "milliseconds an optimizer step", times, {}, smooth=charts.moving_median, zero=True)
    placed = list(enumerate(variants))
    held = [(v, i, [sum(m.parameters for m in v.modules), sum(m.buffers for m in v.modules)]) for i, v in placed]
    peaks = [(v, i, [v.summary.peak_memory_bytes or 0]) for i, v in placed]
    bars("Model in memory", "full: parameters; pale: buffers, such as masks", held)
    bars("Peak memory", "of the device, or of the process on a CPU", peaks)
    for name in others[:_MOST_CHARTS]:
        line(_title(name), "", _curves(variants, name), {})
    for name, parts in by_part.items():
        place, curves = [(i, _curves([v], *parts)) for i, v in placed if any(p in v.series for p in parts)][-1]
        svg = charts.fan_chart(list(curves.values()), place, key=f"chart{len(made)}")
        caption = f"{parts[0].removeprefix(name + '/')} (faint) to {parts[-1].removeprefix(name + '/')} (full)"
        made.append(Chart(f"{_title(name)} by part", caption, Markup(svg), legend=(place,)))
    return made, others[_MOST_CHARTS:]


def _sorted_names(names: Iterable[str]) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """Return names of flip rates, other metrics that get a chart, and metric -> the same metric of parts of the model.

    ``flip_rate/layers.0.mlp`` is a part of ``flip_rate`` where both are reported.
    """
    left = [name for name in names if name not in ("loss", "val_loss", "step_ms")]
    parts: dict[str, list[str]] = {}
    for name in left:
        whole = max((w for w in left if name.startswith(f"{w}/")), key=len, default=None)
        if whole is not None:
            parts.setdefault(whole, []).append(name)
    wholes = [name for name in left if not any(name in found for found in parts.values())]
    rates = [name for name in wholes if name.rpartition("/")[2] == "flip_rate"]
    return rates, [name for name in wholes if name not in rates], parts


def _title(name: str) -> str:
    return name[:1].upper() + name[1:].replace("_", " ")


def _curves(variants: list[Variant], *names: str) -> dict[int, Series]:
    """Return the finite series of these names, numbered by variant, or of one variant, numbered by name."""
    found = [v.series.get(name) for v in variants for name in names]
    return {i: s for i, s in enumerate(found) if s is not None and any(math.isfinite(x) for x in s.values)}


def _second_half(curves: Mapping[int, Series]) -> dict[int, Series]:
    """Return the later half of each curve, where there is enough of it to look at."""
    last = max((series.steps[-1] for series in curves.values()), default=0)
    halves: dict[int, Series] = {}
    for place, series in curves.items():
        first = next((i for i, step in enumerate(series.steps) if 2 * step >= last), len(series.steps))
        if len(series.steps) - first >= 3 and first > 0:
            halves[place] = Series(steps=series.steps[first:], values=series.values[first:])
    return halves


# -------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Line:
    """Like modules in one line of a table."""

    names: tuple[str, ...]
    pattern: str
    reason: str
    details: tuple[tuple[str, str], ...] = ()


def changed(plan: Mapping[str, Any]) -> list[Line]:
    """Return what a plan changes, like modules together."""
    return _group(m for m in plan.get("modules", ()) if m["touched"])


def skipped(plan: Mapping[str, Any]) -> list[Line]:
    """Return what a plan leaves alone, like modules together."""
    return _group(m for m in plan.get("modules", ()) if not m["touched"])


def _group(modules: Iterable[Mapping[str, Any]]) -> list[Line]:
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[str]] = {}
    for m in modules:
        key = (_pattern(m["name"]), _numberless(m["reason"]), tuple(sorted(dict(m.get("details", {})).items())))
        groups.setdefault(key, []).append(m["name"] or "(model)")
    return [Line(tuple(names), pattern, reason, details) for (pattern, reason, details), names in groups.items()]


def _numberless(reason: str) -> str:
    """Return a reason with the positions in module names replaced: ``part of layers.3.mlp`` -> ``layers.*.mlp``."""
    return re.sub(r"(?<=[a-z_]\.)\d+\b", "*", reason)


def _pattern(name: str) -> str:
    """Return a module's name with its positions replaced: ``layers.3.mlp`` -> ``layers.*.mlp``."""
    return ".".join("*" if part.isdigit() else part for part in name.split(".")) or "(model)"


@dataclass(frozen=True)
class KernelRow:
    """Operations that run on one kernel for one reason."""

    operation: str
    kernel: str
    fallback: str
    modules: tuple[str, ...]


def kernel_rows(variant: Variant) -> list[KernelRow]:
    """Return which kernels a variant ran on: fallbacks first, then by operation."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for use in variant.kernels:
        groups.setdefault((use.operation, use.kernel, use.fallback or ""), []).append(use.module)
    rows = [KernelRow(op, kernel, why, tuple(names)) for (op, kernel, why), names in groups.items()]
    return sorted(rows, key=lambda row: not row.fallback)


def _weights(variants: list[Variant]) -> list[tuple[Variant, list[tuple[str, str, int, str, str]]]]:
    """Return bytes of like modules together: (pattern, class, how many, parameters, buffers), the largest first."""
    tables = []
    for v in variants:
        groups: dict[tuple[str, str], list[int]] = {}
        for m in v.modules:
            row = groups.setdefault((_pattern(m.name), m.kind), [0, 0, 0])
            row[0] += 1
            row[1] += m.parameters
            row[2] += m.buffers
        ordered = sorted(groups.items(), key=lambda item: -(item[1][1] + item[1][2]))
        rows = [(p, k, n, " ".join(size(w)), " ".join(size(b)) if b else "–") for (p, k), (n, w, b) in ordered]
        if rows:
            tables.append((v, rows))
    return tables
