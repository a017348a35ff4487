"""Printing: JSON for programs, tables for people, and tables that survive a pipe unbroken."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_json(value: Any) -> None:
    """Print a JSON-compatible value on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def console() -> Console:
    """Return a console on stdout."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def plain_table(*columns: str) -> Table:
    """Return an empty table without lines, in the manner of ``ls -l``."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """Print a table: as wide as the terminal, or unbroken and without trailing spaces where stdout is no terminal."""
    from rich.console import Console

    out = Console(file=sys.stdout, highlight=False)
    if out.is_terminal:
        out.print(table)
        return
    out = Console(file=sys.stdout, highlight=False, width=max(80, Console(width=10_000).measure(table).maximum))
    with out.capture() as captured:
        out.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
