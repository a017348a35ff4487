"""The report's main figures as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planish.report.schema import Report, Summary
from planish.report.units import duration, size

if TYPE_CHECKING:
    from rich.table import Table


def table(report: Report) -> Table:
    """Return one line per variant: losses, speed, memory."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=f"{escape(report.title)}: {report.status}")
    shown.add_column("")
    for name in ("val loss", "perplexity", "tokens/s", "step", "peak memory", "training"):
        shown.add_column(name, justify="right")
    for variant in report.variants.values():
        shown.add_row(escape(variant.title or variant.name), *_cells(variant.summary))
    variants = list(report.variants.values())
    if len(variants) > 1:
        first, last = variants[0].summary.val_loss, variants[-1].summary.val_loss
        if first and last:
            shown.caption = f"validation loss {100 * (last / first - 1):+.2f} % against {escape(variants[0].title)}"
    return shown


def _cells(summary: Summary) -> list[str]:
    def show(value: float | None, text: str) -> str:
        return "–" if value is None else text.format(value)

    return [
        show(summary.val_loss, "{:.4f}"),
        show(summary.val_perplexity, "{:.3f}"),
        show(summary.tokens_per_s, "{:,.0f}"),
        show(summary.step_ms_p50, "{:.4g} ms"),
        "–" if summary.peak_memory_bytes is None else " ".join(size(summary.peak_memory_bytes)),
        "–" if summary.train_s is None else " ".join(duration(summary.train_s)),
    ]
