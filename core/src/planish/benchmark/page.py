"""Showing a benchmark's result: a table for the terminal, a Markdown page for the docs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planish.benchmark.schema import BenchmarkResult, Measurement, Row

if TYPE_CHECKING:
    from rich.table import Table


def table(result: BenchmarkResult) -> Table:
    """Return the result as a rich table."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=f"{result.benchmark} on {_machine(result)}")
    for name in ("case", "metric", "ours", *_peers(result), "floor", "gain", "target"):
        shown.add_column(name, justify="left" if name in ("case", "metric") else "right", overflow="fold")
    for row in result.rows:
        gain = "–"
        if row.gain is not None:
            reached = row.gain >= (row.target if row.target is not None else 1.0)
            gain = f"[{'green' if reached else 'yellow'}]{row.gain:.2f}×[/]"
        shown.add_row(
            escape(row.case),
            f"{row.metric} ({row.unit})",
            _figure(row.ours),
            *(_figure(row.peers[p]) if p in row.peers else "–" for p in _peers(result)),
            "–" if row.floor is None else f"{row.floor:.4g}",
            gain,
            "–" if row.target is None else f"{row.target:.2f}×",
        )
    return shown


def page(result: BenchmarkResult) -> str:
    """Return the result as a Markdown page; every number in it comes from the result."""
    lines = [
        f"# Benchmark: {result.benchmark}",
        "",
        f"Measured on {_machine(result)}, {result.created}"
        + (f", commit `{result.commit[:12]}`" if result.commit else "")
        + ". Times are medians; the 20th to 80th percentile stands in brackets.",
        "",
        "```console",
        f"$ {result.command}",
        "```",
        "",
    ]
    if not result.oracle_passed:
        lines += ["**The oracle check failed on this machine: no gain is stated.**", ""]
    peers = _peers(result)
    heads = ["case", "metric", "ours", *peers, "floor", "gain", "asked for"]
    lines += [_cells(heads), _cells(["---", "---", *["---:"] * (len(heads) - 2)])]
    for row in result.rows:
        lines.append(
            _cells(
                [
                    f"`{row.case}`",
                    f"{row.metric}, {row.unit} ({row.better} is better)",
                    _spread(row.ours),
                    *(_spread(row.peers[p]) if p in row.peers else "–" for p in peers),
                    "–" if row.floor is None else f"{row.floor:.4g}",
                    _gain(row),
                    "–" if row.target is None else f"{row.target:.2f}×",
                ]
            )
        )
    if result.notes:
        lines += ["", *(f"- {note}" for note in result.notes)]
    lines += ["", "Versions: " + ", ".join(f"{name} {version}" for name, version in result.versions.items()) + ".", ""]
    return "\n".join(lines)


def _gain(row: Row) -> str:
    if row.gain is None:
        return "–"
    return f"**{row.gain:.2f}×** against {row.against}"


def _peers(result: BenchmarkResult) -> list[str]:
    return list(dict.fromkeys(name for row in result.rows for name in row.peers))


def _machine(result: BenchmarkResult) -> str:
    machine = result.hardware
    if machine.gpu:
        return f"{machine.gpus} × {machine.gpu}" if machine.gpus > 1 else machine.gpu
    return f"{machine.cpu or 'CPU'} ({machine.cores} cores)"


def _figure(value: Measurement) -> str:
    return f"{value.median:.4g}"


def _spread(value: Measurement) -> str:
    if value.p20 == value.p80:
        return f"{value.median:.5g}"
    return f"{value.median:.4g} [{value.p20:.4g}, {value.p80:.4g}]"


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
