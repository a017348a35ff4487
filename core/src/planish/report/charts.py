"""The report's charts: curves over steps, and bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from planish.report.schema import Series
from planish.report.svg import INK, SERIES, SURFACE, drawing, to_svg

_POINTS = 600
_WIDE, _NARROW, _HEIGHT = 10.6, 5.1, 3.1
"""Inches."""


def line_chart(
    curves: Mapping[int, Series],
    *,
    key: str,
    dots: Mapping[int, Series] | None = None,
    smooth: Callable[[Sequence[float], int], list[float]] | None = None,
    wide: bool = False,
    zero: bool = False,
) -> str:
    """Return an SVG of metrics over steps.

    Args:
        curves: Place of the variant (its colour) -> its values.
        key: Unique among the charts of a page.
        dots: Values taken now and then, drawn as a line through dots, such as validation losses.
        smooth: Drawn boldly over the faint raw values: :func:`moving_average` or :func:`moving_median`, or None.
        wide: Whether the chart spans the page.
        zero: Whether the vertical axis begins at zero.
    """
    with drawing(*((_WIDE, 3.7) if wide else (_NARROW, _HEIGHT))) as (figure, axes):
        for place, series in curves.items():
            steps, values = thin(series, _POINTS)
            colour = SERIES[place % len(SERIES)]
            if smooth is not None and len(values) > 20:
                axes.plot(steps, values, color=colour, alpha=0.22, linewidth=1.0)
                axes.plot(steps, smooth(values, max(2, len(values) // 40)), color=colour)
            else:
                axes.plot(steps, values, color=colour)
        for place, series in (dots or {}).items():
            steps, values = thin(series, 60)
            colour = SERIES[place % len(SERIES)]
            axes.plot(
                steps,
                values,
                color=colour,
                linewidth=1.2,
                linestyle=(0, (1, 2.5)),
                marker="o",
                markersize=6.5,
                markeredgecolor=SURFACE,
                markeredgewidth=1.5,
            )
        axes.margins(x=0.01)
        _focus(axes, [*curves.values(), *(dots or {}).values()])
        if zero:
            axes.set_ylim(bottom=0)
        _label_steps(axes)
        return to_svg(figure, key)


def fan_chart(curves: Sequence[Series], place: int, *, key: str) -> str:
    """Return an SVG of one metric of many parts of a model, the first part faint, the last in full colour.

    Args:
        curves: One for each part, in the model's order.
        place: Place of the variant (its colour).
        key: Unique among the charts of a page.
    """
    with drawing(_NARROW, _HEIGHT) as (figure, axes):
        for position, series in enumerate(curves):
            steps, values = thin(series, _POINTS // 4)
            depth = (position + 1) / len(curves)
            axes.plot(steps, values, color=SERIES[place % len(SERIES)], alpha=0.15 + 0.85 * depth**1.5, linewidth=1.3)
        axes.margins(x=0.01)
        _focus(axes, curves)
        _label_steps(axes)
        return to_svg(figure, key)


def bar_chart(rows: Sequence[tuple[str, int, Sequence[float]]], *, key: str, unit: str) -> str:
    """Return an SVG of stacked horizontal bars.

    Args:
        rows: (label, place of the variant, the bar's parts), from the top; the first part is drawn fully, each further
            one paler.
        key: Unique among the charts of a page.
        unit: Of the amounts.
    """
    with drawing(_NARROW, 0.62 * len(rows) + 0.75) as (figure, axes):
        for line, (_, place, parts) in enumerate(rows):
            left = 0.0
            for position, amount in enumerate(parts):
                axes.barh(
                    -line,
                    amount,
                    left=left,
                    height=0.58,
                    color=SERIES[place % len(SERIES)],
                    alpha=(1.0, 0.45, 0.25)[min(position, 2)],
                    edgecolor=SURFACE,
                    linewidth=1.5,
                )
                left += amount
            axes.annotate(f" {left:,.4g} {unit}", (left, -line), va="center", fontsize=10.5, color=INK)
        axes.set_yticks([-i for i in range(len(rows))], [label for label, _, _ in rows])
        axes.set_xticks([])
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.22)
        axes.set_xlim(left=0)
        return to_svg(figure, key)


def thin(series: Series, most: int) -> tuple[list[float], list[float]]:
    """Return at most ``most`` steps and values: means of equal runs of neighbours, non-finite values left out."""
    points = [(float(s), v) for s, v in zip(series.steps, series.values, strict=True) if math.isfinite(v)]
    run = math.ceil(len(points) / most) if points else 1
    groups = [points[i : i + run] for i in range(0, len(points), run)]
    return [sum(s for s, _ in g) / len(g) for g in groups], [sum(v for _, v in g) / len(g) for g in groups]


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value's neighbours up to ``window`` away; a steep start is not flattened."""
    return [sum(near) / len(near) for near in _neighbours(values, window)]


def moving_median(values: Sequence[float], window: int) -> list[float]:
    """Return the median of each value's neighbours up to ``window`` away, which lone spikes do not move."""
    return [median(values[max(0, i - window) : i + window + 1]) for i in range(len(values))]


def _neighbours(values: Sequence[float], window: int) -> list[Sequence[float]]:
    return [values[i - min(window, i) : i + (window if i >= window else i) + 1] for i in range(len(values))]


def _label_steps(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def _focus(axes: Any, series: Sequence[Series]) -> None:
    """Let the vertical axis show the bulk: a few spikes at the start may leave it above."""
    values = sorted(v for s in series for v in s.values if math.isfinite(v))
    if len(values) < 20:
        return
    low, high, bulk = values[0], values[-1], values[int(0.985 * (len(values) - 1))]
    if high - low > 2.5 * (bulk - low) > 0:
        axes.set_ylim(low - 0.05 * (bulk - low), bulk + 0.12 * (bulk - low))
