"""Turning an exception into one clear line on stderr and an exit code."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer

from planish.cli.output import print_json
from planish.errors import ConfigError, PlanishError

# typer brings its own copy of click in some versions and imports click in others: both are reached through typer.
_ClickException: Any = typer.BadParameter.__mro__[2]


def report_failure(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Print what went wrong and return the exit code: 2 for wrong input, 1 for work that failed.

    Args:
        error: What was raised.
        as_json: Whether to print an object ``{"error": …}`` on stdout as well.
        debug: Whether to print the traceback first.
    """
    lines, kind, code = _explain(error)
    if debug:
        traceback.print_exception(error)
    for line in lines:
        sys.stderr.write(f"error: {line}\n")
    if as_json:
        print_json({"error": {"type": kind, "message": "\n".join(lines), "exit_code": code}})
    return code


def _explain(error: BaseException) -> tuple[list[str], str, int]:
    kind = type(error).__name__
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        said = str(error).strip()
        return [_one_line(said) if said else "interrupted; nothing is left half-written"], "Interrupted", 1
    if isinstance(error, ConfigError):
        # A validation lists every wrong field, one a line; each is a problem of its own.
        return [line for line in str(error).splitlines() if line.strip()], kind, error.exit_code
    if isinstance(error, PlanishError):
        return [_one_line(str(error))], kind, error.exit_code
    if isinstance(error, _ClickException):
        return [_usage(error)], "UsageError", 2
    if isinstance(error, MemoryError):
        return ["out of memory; take a smaller model, batch or sequence length"], kind, 1
    said = _one_line(str(error))
    return [f"{kind}{': ' if said else ''}{said}; run with --debug for the traceback"], kind, 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _usage(error: Any) -> str:
    message = _one_line(error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = f"; '{context.command_path} --help' shows how" if context is not None else ""
    return message[:1].lower() + message[1:] + where
