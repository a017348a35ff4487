"""The command line of programs that draw a figure from a result file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from planish.benchmark.schema import BenchmarkResult, read_result
from planish.errors import PlanishError


def draw_figure(
    plot: Callable[[BenchmarkResult, Path], None],
    *,
    module: str,
    about: str | None,
    source: str,
    example: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run ``python3 -m MODULE RESULT.json FIGURE.svg``: read the result, have it drawn.

    Args:
        plot: Draws a result into a file; says what is wrong as a :class:`~planish.errors.PlanishError`.
        module: What the program is called.
        about: What ``--help`` says of it.
        source: What wrote the result, in words.
        example: A usual name of the figure.
        arguments: Of the command line; None takes the process'.

    Returns:
        The exit code: 0, or that of the error, which is told on standard error.
    """
    parser = argparse.ArgumentParser(prog=f"python3 -m {module}", description=about)
    parser.add_argument("result", type=Path, help=f"JSON that {source} wrote")
    parser.add_argument("figure", type=Path, help=f"SVG to write, such as {example}")
    given = parser.parse_args(arguments)
    try:
        plot(read_result(given.result), given.figure)
    except PlanishError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
