"""The flip-rate figure of the docs, drawn from a result file of the learning experiment and nothing else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planish.atomic import replacing
from planish.benchmark import BenchmarkResult, read_result
from planish.errors import DataError, PlanishError

STYLES: Mapping[str, tuple[str, str]] = {
    "dense": ("dense (virtual)", "#5b6770"),
    "ste": ("STE, no decay", "#c8553d"),
    "fst": ("FST, found decay", "#2f6db5"),
    "fst+finish": ("FST with dense finish", "#7a4fa3"),
    "sste": ("S-STE", "#2a8c68"),
}
"""Variant -> its name and colour in the figure."""


def plot(result: BenchmarkResult, path: Path) -> None:
    """Draw flip rate over steps, a line for each method with the range over seeds, and the final losses, as SVG.

    Raises:
        DataError: The result holds no run of any method of the figure.
        UnsupportedError: matplotlib is not installed.
        WorkError: The file cannot be written.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in result.rows:
        if row.metric == "val_loss" and row.extra.get("variant") in STYLES:
            groups.setdefault(row.extra["variant"], []).append(row.extra)
    if not groups:
        raise DataError(f"{result.benchmark} holds no runs of {', '.join(STYLES)}; run the learning experiment first")
    try:
        import matplotlib as mpl
    except ImportError:
        from planish.errors import UnsupportedError

        raise UnsupportedError("drawing needs matplotlib; run: pip install matplotlib") from None
    style = {"svg.hashsalt": "planish", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style), replacing(path) as beside:
        _draw(groups).savefig(beside, format="svg", metadata={"Date": None})


def _draw(groups: Mapping[str, list[Mapping[str, Any]]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    curves, losses = figure.subplots(1, 2, width_ratios=[1.7, 1])
    present = [variant for variant in STYLES if variant in groups]
    for variant in present:
        name, colour = STYLES[variant]
        steps, low, mean, high = _over_seeds([run["flip_rate"] for run in groups[variant]])
        curves.plot(steps, mean, color=colour, label=name, linewidth=1.6)
        curves.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    curves.set_yscale("log")
    curves.set_xlabel("optimizer step")
    curves.set_ylabel("flip rate, per weight and step")
    curves.legend(frameon=False)
    for place, variant in enumerate(reversed(present)):
        name, colour = STYLES[variant]
        values = [run["val_loss"] for run in groups[variant]]
        losses.plot(values, [place] * len(values), "o", color=colour, alpha=0.55, markersize=5)
        losses.plot([sum(values) / len(values)], [place], "|", color=colour, markersize=18, markeredgewidth=2.4)
    losses.set_yticks(range(len(present)), [STYLES[variant][0] for variant in reversed(present)])
    losses.set_ylim(-0.6, len(present) - 0.4)
    losses.set_xlabel("final validation loss, nats per byte")
    losses.grid(axis="x", alpha=0.25)
    seeds = max(len(runs) for runs in groups.values())
    settings = next(iter(groups.values()))[0]["settings"]
    figure.suptitle(
        f"GPT, width {settings['width']}, {settings['layers']} layers, {settings['steps']} steps on Python's "
        f"standard library; masks searched every {settings['mask_interval']} steps; "
        f"{seeds} seed{'s' if seeds > 1 else ''}",
        fontsize=10,
    )
    return figure


def _over_seeds(curves: list[list[tuple[int, float]]]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps, and over the seeds the lowest, mean and highest rate; zero is drawn as one flip in a hundred million."""
    steps = [step for step, _ in curves[0]]
    columns = [[max(rate, 1e-8) for rate in at] for at in zip(*([r for _, r in c] for c in curves), strict=True)]
    return steps, [min(c) for c in columns], [sum(c) / len(c) for c in columns], [max(c) for c in columns]


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_pretrain24.benchmark.flip_rate_plot RESULT.json FIGURE.svg``."""
    parser = argparse.ArgumentParser(prog="python3 -m planish_pretrain24.benchmark.flip_rate_plot", description=__doc__)
    parser.add_argument("result", type=Path, help="JSON that the learning experiment wrote")
    parser.add_argument("figure", type=Path, help="SVG to write, such as docs/benchmarks/pretrain24-flip-rate.svg")
    given = parser.parse_args(arguments)
    try:
        plot(read_result(given.result), given.figure)
    except PlanishError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
