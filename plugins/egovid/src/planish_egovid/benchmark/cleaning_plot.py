"""The figure of the cleaning experiment, drawn from its result file and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planish.atomic import replacing
from planish.benchmark import BenchmarkResult, Row, draw_figure
from planish.errors import DataError, UnsupportedError


@dataclass(frozen=True)
class Style:
    """How an arm is drawn."""

    name: str
    colour: str


STYLES: Mapping[str, Style] = {
    "everything": Style("all clips", "#5b6770"),
    "random": Style("a random subset as large", "#c8553d"),
    "kept": Style("what the pipeline keeps", "#2f6db5"),
}
"""Arm -> its name and colour, in the order of the legend."""
_WITHOUT = "decisions without "


def plot(result: BenchmarkResult, path: Path) -> None:
    """Draw held-out losses over steps and at the end, and recall of each fault and without each rule, as SVG.

    Thin lines and points are seeds, thick lines and bars their means.

    Raises:
        DataError: The result holds no run of the experiment.
        UnsupportedError: matplotlib is not installed.
        WorkError: The file cannot be written.
    """
    arms = {
        arm: [row.extra for row in result.rows if row.metric == "val_loss" and row.extra.get("arm") == arm]
        for arm in STYLES
    }
    arms = {arm: runs for arm, runs in arms.items() if runs}
    if not arms:
        raise DataError(f"{result.benchmark} holds no runs of {', '.join(STYLES)}; run the cleaning experiment first")
    try:
        import matplotlib as mpl
    except ImportError:
        raise UnsupportedError("drawing needs matplotlib; run: pip install matplotlib") from None
    style = {"svg.hashsalt": "planish", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style), replacing(path) as beside:
        _draw(arms, result.rows).savefig(beside, format="svg", metadata={"Date": None})


def _draw(arms: Mapping[str, Sequence[Mapping[str, Any]]], rows: Sequence[Row]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 2, height_ratios=[1.15, 1], width_ratios=[1.25, 1])
    _draw_curves(figure.add_subplot(grid[0, 0]), arms)
    _draw_losses(figure.add_subplot(grid[0, 1]), arms)
    _draw_faults(figure.add_subplot(grid[1, 0]), rows)
    _draw_rules(figure.add_subplot(grid[1, 1]), rows)
    training = next(iter(arms.values()))[0]["settings"]["training"]
    mix = next(iter(arms.values()))[0]["settings"]["mix"]
    seeds = max(len(runs) for runs in arms.values())
    figure.suptitle(
        f"{mix['clips']} rendered clips, {mix['spoilt']:.0%} of them spoilt; a video model of "
        f"{training['frames']}x{training['side']}x{training['side']} pixels, {training['steps']} steps of "
        f"{training['batch']} samples; {seeds} seed{'s' if seeds > 1 else ''}",
        fontsize=11,
    )
    return figure


def _draw_curves(axis: Any, arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for arm, runs in arms.items():
        colour = STYLES[arm].colour
        steps = [step for step, _ in runs[0]["curve"]]
        curves = [[loss for _, loss in run["curve"]] for run in runs]
        for losses in curves:
            axis.plot(steps, losses, color=colour, linewidth=0.6, alpha=0.45)
        mean = [sum(at) / len(at) for at in zip(*curves, strict=True)]
        axis.plot(steps, mean, "-o", color=colour, markersize=3.5, linewidth=1.7, label=STYLES[arm].name)
    axis.set_yscale("log")
    axis.minorticks_off()
    low, high = axis.get_ylim()
    ticks = [tick for tick in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5) if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xlabel("optimizer step")
    axis.set_title("flow-matching loss on clean clips of unseen rooms, on the way", fontsize=10)
    axis.grid(axis="y", alpha=0.25)
    axis.legend(frameon=False)


def _draw_losses(axis: Any, arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    drawn = list(arms.items())[::-1]
    for place, (arm, runs) in enumerate(drawn):
        colour = STYLES[arm].colour
        values = [run["val_loss"] for run in runs]
        mean = sum(values) / len(values)
        axis.plot(values, [place] * len(values), "o", color=colour, alpha=0.6, markersize=5.5)
        axis.plot([mean], [place], "|", color=colour, markersize=20, markeredgewidth=2.2)
        axis.annotate(
            f"{mean:.4f}", (mean, place), xytext=(0, 13), textcoords="offset points", ha="center", fontsize=9,
            color=colour,
        )  # fmt: skip
    axis.set_yticks(range(len(drawn)), [f"{STYLES[arm].name}\n({runs[0]['clips']} clips)" for arm, runs in drawn])
    axis.set_ylim(-0.5, len(drawn) - 0.3)
    axis.margins(x=0.12)
    axis.set_title("loss at the end: seeds, and their mean", fontsize=10)
    axis.grid(axis="x", alpha=0.25)


def _draw_faults(axis: Any, rows: Sequence[Row]) -> None:
    faults = [row for row in rows if row.metric == "recall" and "dropped" in row.extra]
    faults.sort(key=lambda row: (row.ours.median, row.case))
    axis.barh(range(len(faults)), [row.ours.median for row in faults], color="#86aedb", height=0.65)
    for place, row in enumerate(faults):
        axis.annotate(
            f"{row.extra['dropped']} of {row.extra['clips']}", (0, place), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=9, color="#1d3d63",
        )  # fmt: skip
    axis.set_yticks(range(len(faults)), [row.case.partition("/")[2] for row in faults])
    axis.set_xlim(0, 1)
    axis.set_title("share of the clips with a fault that is dropped", fontsize=10)


def _draw_rules(axis: Any, rows: Sequence[Row]) -> None:
    recalls = {row.case: row.ours.median for row in rows if row.metric == "recall"}
    rules = {case.removeprefix(_WITHOUT): value for case, value in recalls.items() if case.startswith(_WITHOUT)}
    ordered = sorted(rules.items(), key=lambda rule: (-rule[1], rule[0]))
    axis.barh(range(len(ordered)), [value for _, value in ordered], color="#b9c0c6", height=0.65)
    for place, (_, value) in enumerate(ordered):
        axis.annotate(
            f"{value:.3f}", (0, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9,
            color="#333333",
        )  # fmt: skip
    if "decisions" in recalls:
        axis.axvline(recalls["decisions"], color="#2f6db5", linewidth=1.2, linestyle=":")
        axis.annotate(
            f"all rules: {recalls['decisions']:.3f}", (recalls["decisions"], 1), xycoords=("data", "axes fraction"),
            xytext=(-4, -2), textcoords="offset points", ha="right", va="bottom", fontsize=9, color="#2f6db5",
        )  # fmt: skip
    axis.set_yticks(range(len(ordered)), [f"without {rule}" for rule, _ in ordered])
    axis.set_xlim(0, 1)
    axis.set_title("recall with one rule switched off\n", fontsize=10)


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_egovid.benchmark.cleaning_plot RESULT.json FIGURE.svg``."""
    return draw_figure(
        plot,
        module="planish_egovid.benchmark.cleaning_plot",
        about=__doc__,
        source="the cleaning experiment",
        example="docs/benchmarks/egovid-cleaning.svg",
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
