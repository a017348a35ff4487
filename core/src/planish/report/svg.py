"""Drawings of a page: matplotlib figures as inline SVG whose colours are the page's CSS variables."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

# matplotlib wants literal colours; these stand for CSS variables and are replaced in the SVG, so that one drawing
# serves the light page and the dark one.
_VARIABLES = {"#0a0b01": "--ink-2", "#0a0b02": "--grid", "#0a0b03": "--surface"}
SERIES = tuple(f"#0a0c{i:02x}" for i in range(6))
_VARIABLES |= {colour: f"--series-{i}" for i, colour in enumerate(SERIES)}
INK, GRID, SURFACE = "#0a0b01", "#0a0b02", "#0a0b03"

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1.0,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 1.0,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 4,
    "ytick.major.size": 0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


class drawing:
    """A matplotlib figure and its axes in the page's style, without touching matplotlib's global state for long."""

    def __init__(self, width: float, height: float) -> None:
        """Keep the size, in inches."""
        self.size = (width, height)

    def __enter__(self) -> tuple[Any, Any]:
        """Return the figure and its axes."""
        import matplotlib
        from matplotlib.figure import Figure

        self._context: Any = matplotlib.rc_context(_STYLE)
        self._context.__enter__()
        figure = Figure(figsize=self.size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        return figure, axes

    def __exit__(self, *exc: object) -> None:
        """Give matplotlib its settings back."""
        self._context.__exit__(*exc)


def to_svg(figure: Any, key: str) -> str:
    """Return a figure as SVG text to put into a page.

    Args:
        figure: The matplotlib figure.
        key: Unique among the drawings of a page.
    """
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = key
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = {*re.findall(r"url\(#([^)]+)\)", svg), *re.findall(r'href="#([^"]+)"', svg)}
    # Only ids that are referred to stay: a page holds many charts, and matplotlib numbers each from 1.
    svg = re.sub(r' id="([^"]+)"', lambda found: found.group(0) if found.group(1) in used else "", svg)
    svg = re.sub(r'font: ([\d.]+)px [^;"]*', r"font-size: \1px", svg)
    svg = re.sub(r'font-family: [^;"]*;?', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
