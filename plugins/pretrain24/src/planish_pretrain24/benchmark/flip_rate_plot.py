"""The flip-rate figure of the docs, drawn from a result file of the learning experiment and nothing else."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planish.atomic import replacing
from planish.benchmark import BenchmarkResult, draw_figure
from planish.errors import DataError

from planish_pretrain24.decay_search import FEASIBLE


@dataclass(frozen=True)
class Style:
    """How a variant is drawn."""

    name: str
    colour: str
    dashes: str | tuple[int, tuple[int, ...]] = "-"
    curve: bool = True


STYLES: Mapping[str, Style] = {
    "dense": Style("dense (virtual masks)", "#5b6770"),
    "ste": Style("STE, no decay", "#c8553d"),
    "fst": Style("FST, found decay", "#2f6db5"),
    "fst+finish": Style("FST with dense finish", "#8a3fa0", (0, (4, 2))),
    "fst-mvue-off": Style("FST, dense weight gradient", "#86aedb", curve=False),
    "sste": Style("S-STE", "#2a8c68"),
}
"""Variant -> its name and line in the figure; without ``curve`` it is among the losses only."""


def plot(result: BenchmarkResult, path: Path) -> None:
    """Draw flip rates over steps, mu over the decay factors that were tried, and the final losses, as SVG.

    Thin lines and points are seeds, thick lines and bars their means.

    Raises:
        DataError: The result holds no run of any method of the figure.
        UnsupportedError: matplotlib is not installed.
        WorkError: The file cannot be written.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    search: Mapping[str, Any] | None = None
    for row in result.rows:
        if row.metric == "val_loss" and row.extra.get("variant") in STYLES:
            groups.setdefault(row.extra["variant"], []).append(row.extra)
        elif row.metric == "mu":
            search = row.extra["search"]
    if not groups:
        raise DataError(f"{result.benchmark} holds no runs of {', '.join(STYLES)}; run the learning experiment first")
    try:
        import matplotlib as mpl
    except ImportError:
        from planish.errors import UnsupportedError

        raise UnsupportedError("drawing needs matplotlib; run: pip install matplotlib") from None
    style = {"svg.hashsalt": "planish", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style), replacing(path) as beside:
        _draw({name: groups[name] for name in STYLES if name in groups}, search).savefig(
            beside, format="svg", metadata={"Date": None}
        )


def _draw(groups: dict[str, list[Mapping[str, Any]]], search: Mapping[str, Any] | None) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 2, height_ratios=[1.25, 1])
    settings = next(iter(groups.values()))[0]["settings"]
    _draw_curves(figure.add_subplot(grid[0, :]), groups, settings)
    if search is not None:
        _draw_search(figure.add_subplot(grid[1, 0]), search)
    _draw_losses(figure.add_subplot(grid[1, 1] if search is not None else grid[1, :]), groups)
    seeds = max(len(runs) for runs in groups.values())
    figure.suptitle(
        f"GPT, width {settings['width']}, {settings['layers']} layers, {settings['steps']} steps on Python's "
        f"standard library; masks searched every {settings['mask_interval']} steps; "
        f"{seeds} seed{'s' if seeds > 1 else ''}",
        fontsize=11,
    )
    return figure


def _plain_log_scale(axis: Any, which: str) -> None:
    """A logarithmic axis with labels at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axis, f"set_{which}scale")("log")
    ticks = getattr(axis, f"{which}axis")
    ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))
    ticks.set_minor_formatter(NullFormatter())


def _draw_curves(axis: Any, groups: Mapping[str, list[Mapping[str, Any]]], settings: Mapping[str, Any]) -> None:
    for variant, runs in groups.items():
        style = STYLES[variant]
        if not style.curve:
            continue
        steps = [step for step, _ in runs[0]["flip_rate"]]
        # No flip at all is drawn as one in a hundred million.
        seeds = [[max(rate, 1e-8) for _, rate in run["flip_rate"]] for run in runs]
        for rates in seeds:
            axis.plot(steps, rates, color=style.colour, linewidth=0.5, alpha=0.45)
        mean = [sum(at) / len(at) for at in zip(*seeds, strict=True)]
        axis.plot(steps, mean, color=style.colour, linestyle=style.dashes, label=style.name, linewidth=1.7)
    _plain_log_scale(axis, "y")
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom, top * 1.15)
    marks = {settings["warmup"]: "warm-up ends"}
    if "fst+finish" in groups:
        marks[math.floor(settings["steps"] * (1 - settings["dense_finish"]) + 1e-6)] = "dense finish begins"
    for step, what in marks.items():
        axis.axvline(step, color="#999999", linewidth=0.8, linestyle=":")
        axis.annotate(
            what, (step, 1), xycoords=("data", "axes fraction"), xytext=(4, -3), textcoords="offset points",
            va="top", fontsize=9, color="#666666",
        )  # fmt: skip
    axis.set_xlim(0, settings["steps"] * 1.01)
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("flip rate, per weight and step")
    axis.grid(axis="y", alpha=0.25)
    axis.legend(frameon=False, loc="lower left")


def _draw_search(axis: Any, search: Mapping[str, Any]) -> None:
    trials = search["trials"]
    axis.axhspan(*FEASIBLE, color="#2f6db5", alpha=0.12, linewidth=0)
    axis.annotate(
        f"feasible: {FEASIBLE[0]:g} to {FEASIBLE[1]:g}", (0.02, FEASIBLE[0]), xycoords=("axes fraction", "data"),
        xytext=(0, 4), textcoords="offset points", fontsize=9, color="#2f6db5",
    )  # fmt: skip
    axis.axhline(1, color="#5b6770", linewidth=0.8, linestyle=":")
    axis.plot([t["decay"] for t in trials], [t["mu"] for t in trials], "-o", color="#2f6db5", markersize=4.5)
    chosen = next(t for t in trials if t["decay"] == search["chosen"])
    axis.plot([chosen["decay"]], [chosen["mu"]], "o", markersize=11, markerfacecolor="none", color="#c8553d")
    axis.annotate(
        f"chosen: {chosen['decay']:g}, mu {chosen['mu']:.2f}", (chosen["decay"], chosen["mu"]), xytext=(10, 8),
        textcoords="offset points", fontsize=9, color="#c8553d",
    )  # fmt: skip
    _plain_log_scale(axis, "x")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("decay factor")
    axis.set_ylabel("mu: flip rate over the dense run's")
    axis.set_title(f"search: steps {search['first_step']} to {search['steps']}, one seed", fontsize=10)


def _draw_losses(axis: Any, groups: dict[str, list[Mapping[str, Any]]]) -> None:
    for place, (variant, runs) in enumerate(reversed(groups.items())):
        style = STYLES[variant]
        values = [run["val_loss"] for run in runs]
        mean = sum(values) / len(values)
        axis.plot(values, [place] * len(values), "o", color=style.colour, alpha=0.6, markersize=5.5)
        axis.plot([mean], [place], "|", color=style.colour, markersize=20, markeredgewidth=2.2)
        axis.annotate(
            f"{mean:.4f}", (mean, place), xytext=(0, 12), textcoords="offset points", ha="center", fontsize=9,
            color=style.colour,
        )  # fmt: skip
        if variant == "dense":
            axis.axvline(mean, color=style.colour, linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(groups)), [STYLES[variant].name for variant in reversed(groups)])
    axis.set_ylim(-0.5, len(groups) - 0.3)
    axis.set_xlabel("nats per byte")
    axis.set_title("final validation loss: seeds, and their mean", fontsize=10)
    axis.grid(axis="x", alpha=0.25)


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_pretrain24.benchmark.flip_rate_plot RESULT.json FIGURE.svg``."""
    return draw_figure(
        plot,
        module="planish_pretrain24.benchmark.flip_rate_plot",
        about=__doc__,
        source="the learning experiment",
        example="docs/benchmarks/pretrain24-flip-rate.svg",
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
