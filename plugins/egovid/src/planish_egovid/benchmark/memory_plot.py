"""The figure of the memory benchmark, drawn from its result file and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planish.atomic import replacing
from planish.benchmark import BenchmarkResult, Row, draw_figure
from planish.errors import DataError, UnsupportedError

COLOURS = ("#5b6770", "#2f6db5")


def plot(result: BenchmarkResult, path: Path) -> None:
    """Draw the resident memory of each process over the clips that were scored, from zero, as SVG.

    Args:
        result: What ``planish bench egovid-memory`` gave.
        path: The file to write.

    Raises:
        DataError: The result holds no curve of memory.
        UnsupportedError: matplotlib is not installed.
        WorkError: The file cannot be written.
    """
    rows = [row for row in result.rows if row.metric == "resident memory" and row.extra.get("MiB")]
    if not rows:
        raise DataError(f"{result.benchmark} holds no curve of memory; run planish bench egovid-memory first")
    try:
        import matplotlib as mpl
    except ImportError:
        raise UnsupportedError("drawing needs matplotlib; run: pip install matplotlib") from None
    style = {"svg.hashsalt": "planish", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style), replacing(path) as beside:
        _draw(rows).savefig(beside, format="svg", metadata={"Date": None})


def _draw(rows: Sequence[Row]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained", facecolor="white")
    axis = figure.add_subplot()
    for number, row in enumerate(rows):
        name, _, _ = row.case.partition(" after ")
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(row.extra["clips"], row.extra["MiB"], color=colour, linewidth=1.6, label=name)
        axis.annotate(
            f"{row.ours.median:.0f} MiB", (row.extra["clips"][-1], row.extra["MiB"][-1]), xytext=(-2, 6),
            textcoords="offset points", ha="right", fontsize=9, color=colour,
        )  # fmt: skip
    axis.set_ylim(0, 1.25 * max(max(row.extra["MiB"]) for row in rows))
    axis.set_xlim(left=0)
    axis.set_xlabel("clips scored")
    axis.set_ylabel("resident memory, MiB")
    axis.grid(axis="y", alpha=0.25)
    axis.legend(frameon=False, ncols=len(rows), loc="upper left")
    return figure


def main(arguments: list[str] | None = None) -> int:
    """``python3 -m planish_egovid.benchmark.memory_plot RESULT.json FIGURE.svg``."""
    return draw_figure(
        plot,
        module="planish_egovid.benchmark.memory_plot",
        about=__doc__,
        source="planish bench egovid-memory",
        example="docs/benchmarks/egovid-memory.svg",
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
