"""``planish kernels``: every operator and backend, the matmul table, the self-tests. Only planish's CLI loads it."""

from __future__ import annotations

import difflib
import importlib
import json
import sys
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from planish_kernels.matmul import matmul_kernels
from planish_kernels.runtime.capability import cuda_available
from planish_kernels.runtime.op import Op, load_ops
from planish_kernels.runtime.self_test import run_self_tests, self_tests
from planish_kernels.runtime.support import Support


def kernels(
    op: Annotated[str | None, typer.Option("--op", help="Show this operator alone ('matmul' for the table).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every operator and backend: available, or why not; the matmul table; the self-tests, which are run."""
    operators = load_ops()
    importlib.import_module("planish_kernels.matmul")
    names = [*sorted(operators), "matmul"]
    if op is not None and op not in names:
        near = difflib.get_close_matches(op, names, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f": there are {', '.join(names)}"
        raise typer.BadParameter(f"no operator named {op!r}{hint}", param_hint="--op")
    listing: dict[str, Any] = {}
    listing["ops"] = [_operator(operators[name]) for name in sorted(operators) if op in (None, name)]
    listing["matmul"] = _matmul() if op in (None, "matmul") else []
    listing["self_tests"] = _self_tests() if op is None else []
    if as_json:
        sys.stdout.write(json.dumps(listing, indent=2, ensure_ascii=False) + "\n")
        return
    _print(listing)


def _operator(op: Op) -> dict[str, Any]:
    backends = [{"backend": name, **_availability(support)} for name, support in op.availability().items()]
    return {"name": op.name, "summary": op.summary, "backends": backends}


def _matmul() -> list[dict[str, Any]]:
    return [
        {
            "kernel": kernel.name,
            "backend": kernel.backend,
            "left": str(kernel.left),
            "right": str(kernel.right),
            **_availability(kernel.available()),
            "measured": kernel.measured,
        }
        for kernel in matmul_kernels()
    ]


def _self_tests() -> list[dict[str, Any]]:
    done = {r.name: r for r in run_self_tests(torch.device("cuda" if cuda_available() else "cpu"))}
    rows = []
    for name, test in self_tests().items():
        result = done.get(name)
        rows.append(
            {
                "name": name,
                "guards": test.guards,
                "ok": None if result is None else result.ok,
                # JSON has no NaN: a test that raised has no error to give.
                "relative_error": None if result is None or result.error != result.error else result.error,
                "tolerance": test.tolerance,
                "device": None if result is None else result.device,
                "detail": test.available().reason if result is None else result.detail,
            }
        )
    return rows


def _availability(support: Support) -> dict[str, Any]:
    return {"available": support.ok, "reason": support.reason}


def _print(listing: dict[str, Any]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        # A pipe gets whole lines.
        console = Console(highlight=False, width=200)
    if listing["ops"]:
        table = _table("operator", "backend", "available", "because")
        for op in listing["ops"]:
            for i, row in enumerate(op["backends"]):
                because = row["reason"] or (op["summary"] if row["backend"] == "reference" else "")
                table.add_row(op["name"] if i == 0 else "", row["backend"], _mark(row["available"]), because)
        console.print(table)
    if listing["matmul"]:
        table = _table("matmul kernel", "backend", "takes", "available", "because")
        for row in listing["matmul"]:
            because = row["reason"] or row["measured"]
            takes = f"{row['left']} @ {row['right']}"
            table.add_row(row["kernel"], row["backend"], takes, _mark(row["available"]), because)
        console.print(table)
    if listing["self_tests"]:
        table = _table("self-test", "guards", "passed", "relative error", "because")
        for row in listing["self_tests"]:
            error = "" if row["relative_error"] is None else f"{row['relative_error']:.2g} of {row['tolerance']:.2g}"
            passed = "not run" if row["ok"] is None else _mark(row["ok"])
            table.add_row(row["name"], row["guards"], passed, error, row["detail"])
        console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _mark(available: bool) -> str:
    return "[green]yes[/green]" if available else "[yellow]no[/yellow]"
