"""The figure of the learning experiment, drawn from a result file and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planish.atomic import replacing
from planish.benchmark import BenchmarkResult, Row, draw_figure
from planish.errors import DataError, UnsupportedError

from planish_jetfire.benchmark.learning import MODELS, baseline_of, excesses
from planish_jetfire.benchmark.learning_variants import VARIANTS

COLOURS = {
    "float32": "#5b6770",
    "jetfire-32": "#2f6db5",
    "jetfire-128": "#86aedb",
    "float8-128": "#d39a2d",
    "per-token": "#2a8c68",
    "per-tensor": "#c8553d",
}
ABLATION_COLOUR = "#8a3fa0"
CURVES = ("float32+outliers", "jetfire-32+outliers", "per-tensor+outliers")
NAMES = {"gpt2": "GPT-2", "llama": "Llama"}
SMOOTH = 5
"""Points of a curve, of 50, that are averaged."""
TOLERANCE = 1.0
"""Per cent of the loss of full precision that count as parity."""


@dataclass(frozen=True)
class _Line:
    """One line of dots: a variant's excess over full precision, seed by seed."""

    label: str
    colour: str
    values: Sequence[float]


def plot(result: BenchmarkResult, path: Path) -> None:
    """Draw, for each model, how far each variant ends above full precision, and training losses with outliers, as SVG.

    Dots are seeds, bars their means; the band is one per cent of the loss of full precision.

    Raises:
        DataError: The result holds nothing that can be compared with full precision.
        UnsupportedError: matplotlib is not installed.
        WorkError: The file cannot be written.
    """
    rows = [row for row in result.rows if row.metric == "val_loss"]
    models = [model for model in MODELS if any(key[0] == model for key in excesses(rows))]
    if not models:
        raise DataError(f"{result.benchmark} holds no run of full precision; run the learning experiment first")
    try:
        import matplotlib as mpl
    except ImportError:
        raise UnsupportedError("drawing needs matplotlib; run: pip install matplotlib") from None
    style = {"svg.hashsalt": "planish", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style), replacing(path) as beside:
        _draw(rows, models).savefig(beside, format="svg", metadata={"Date": None})


def _draw(rows: Sequence[Row], models: Sequence[str]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8.5), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, len(models), height_ratios=[1.9, 1])
    limits = _limits(rows)
    for column, model in enumerate(models):
        lines = _lines(rows, model)
        axis = figure.add_subplot(grid[0, column])
        _draw_excesses(axis, lines, limits)
        axis.set_title(NAMES[model])
        _draw_curves(figure.add_subplot(grid[1, column]), rows, model)
    settings = rows[0].extra["settings"]
    seeds = len({row.extra["seed"] for row in rows})
    figure.suptitle(
        f"Width {settings['width']}, {settings['layers']} layers, {settings['steps']} steps on Python's standard "
        f"library; {seeds} seed{'s' if seeds > 1 else ''}",
        fontsize=11,
    )
    return figure


def _lines(rows: Sequence[Row], model: str) -> list[_Line]:
    found: Mapping[tuple[str, str], list[float]] = excesses(rows)
    lines = []
    for variant, spec in VARIANTS.items():
        values = found.get((model, variant))
        if values is None or variant == baseline_of(variant):
            continue
        plain = variant.removesuffix("+outliers")
        label = f"{spec.label}, outliers" if spec.outliers else spec.label
        lines.append(_Line(label, COLOURS.get(plain, ABLATION_COLOUR), [100 * value for value in values]))
    return lines


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """One scale for all models."""
    values = [100 * value for shares in excesses(rows).values() for value in shares]
    low, high = min([-TOLERANCE, *values]), max([TOLERANCE, *values])
    margin = 0.08 * (high - low)
    return low - margin, high + margin


def _draw_excesses(axis: Any, lines: Sequence[_Line], limits: tuple[float, float]) -> None:
    axis.axvspan(-TOLERANCE, TOLERANCE, color="#5b6770", alpha=0.12, linewidth=0)
    axis.axvline(0, color="#5b6770", linewidth=0.8, linestyle=":")
    for place, line in enumerate(reversed(lines)):
        mean = sum(line.values) / len(line.values)
        axis.plot(line.values, [place] * len(line.values), "o", color=line.colour, alpha=0.55, markersize=5)
        axis.plot([mean], [place], "|", color=line.colour, markersize=16, markeredgewidth=2.4)
        axis.annotate(
            f"{mean:+.2f}", (mean, place), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8,
            color=line.colour,
        )  # fmt: skip
    axis.set_yticks(range(len(lines)), [line.label for line in reversed(lines)])
    axis.set_xlim(*limits)
    axis.set_ylim(-0.6, len(lines) - 0.2)
    axis.set_xlabel("validation loss above full precision, %")
    axis.grid(axis="x", alpha=0.25)


def _draw_curves(axis: Any, rows: Sequence[Row], model: str) -> None:
    """Training losses above full precision's, with outliers: means of the seeds, over windows of steps."""
    curves = {variant: _mean_curve(rows, model, variant) for variant in CURVES}
    reference = curves[CURVES[0]]
    axis.axhline(0, color="#5b6770", linewidth=0.8, linestyle=":")
    for variant in CURVES[1:]:
        if reference and curves[variant]:
            above = [100 * (loss / base - 1) for (_, loss), (_, base) in zip(curves[variant], reference, strict=True)]
            smooth = [
                sum(part) / len(part) for i in range(len(above)) for part in [above[max(0, i - SMOOTH + 1) : i + 1]]
            ]
            axis.plot(
                [step for step, _ in reference], smooth, color=COLOURS[variant.removesuffix("+outliers")],
                linewidth=1.6, label=VARIANTS[variant].label,
            )  # fmt: skip
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("training loss, % above")
    axis.set_title("with planted outliers", fontsize=10)
    axis.grid(axis="y", alpha=0.25)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8, loc="upper left")


def _mean_curve(rows: Sequence[Row], model: str, variant: str) -> list[tuple[int, float]]:
    runs = [row.extra["train_loss"] for row in rows if (row.extra["model"], row.extra["variant"]) == (model, variant)]
    return [(at[0][0], sum(loss for _, loss in at) / len(at)) for at in zip(*runs, strict=True)]


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_jetfire.benchmark.learning_plot RESULT.json FIGURE.svg``."""
    return draw_figure(
        plot,
        module="planish_jetfire.benchmark.learning_plot",
        about=__doc__,
        source="the learning experiment",
        example="docs/benchmarks/jetfire-learning.svg",
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
