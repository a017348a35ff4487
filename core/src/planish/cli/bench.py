"""``planish bench``: benchmark programs, which check before they time."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planish.cli.output import plain_table, print_json, print_table
from planish.cli.session import Json, session
from planish.errors import ConfigError, UnsupportedError, WorkError

if TYPE_CHECKING:
    from planish.plugins.registry import Registry


def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A benchmark; left out: list them.")] = None,
    device: Annotated[str, typer.Option(help="Such as cuda or cpu; auto: a GPU where there is one.")] = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, few rounds: to try it, not to quote.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the result to this JSON file as well.")] = None,
    page: Annotated[Path | None, typer.Option(metavar="RESULT", help="Print a result file as a page of docs.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a method beside what you would use instead, on this machine.

    The method is first checked against its oracle; where that fails, no gain is stated and the exit code is 1.

    Example: planish bench pretrain24 --device cuda --out result.json

    Example: planish bench --page result.json > docs/benchmarks/pretrain24.md
    """
    registry = session(context).registry
    if page is not None:
        if name is not None:
            raise ConfigError(f"--page prints a result that exists; leave {name!r} out, or leave --page out to measure")
        from planish.benchmark import page as to_markdown
        from planish.benchmark import read_result

        found = read_result(page)
        if as_json:
            print_json(found.model_dump(mode="json"))
        else:
            sys.stdout.write(to_markdown(found))
        return
    if name is None:
        _list(registry, as_json)
        return
    program = registry.load(name, "benchmark")

    from planish.benchmark import BenchmarkOptions, BenchmarkResult, write_result
    from planish.benchmark.page import table
    from planish.config import validate

    where = _device(device)
    typed = shlex.join(["planish", "bench", name, "--device", where, *(["--quick"] if quick else [])])
    found = validate(BenchmarkResult, program(BenchmarkOptions(where, quick, typed)), where=f"result of {name}")
    if out is not None:
        write_result(found, out)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_table(table(found))
        for note in found.notes:
            print(f"note: {note}")
        if out is not None:
            print(f"wrote {out}")
    if not found.oracle_passed:
        raise WorkError(
            f"{name} disagrees with its oracle on {where}; no gain is stated, and its results are not right"
        )


def _list(registry: Registry, as_json: bool) -> None:
    entries = registry.of("benchmark")
    if as_json:
        print_json([{"name": e.name, "plugin": e.distribution, "summary": e.summary} for e in entries])
        return
    if not entries:
        print("no installed plugin brings a benchmark")
        return
    table = plain_table("NAME", "PLUGIN", "SUMMARY")
    for e in entries:
        table.add_row(e.name, e.distribution, e.summary)
    print_table(table)


def _device(given: str) -> str:
    """Return the device to measure on.

    Raises:
        ConfigError: It is no device.
        UnsupportedError: It is not on this machine.
    """
    import torch

    if given == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(given)
    except RuntimeError:
        raise ConfigError(f"--device: {given!r} is no device; such as cuda, cuda:1 or cpu") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnsupportedError(f"--device: {given!r} is not there; this machine has {torch.cuda.device_count()} GPUs")
    return given
