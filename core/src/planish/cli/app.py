"""The command ``planish``: global options, the verbs, and one clear line for whatever goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import planish
from planish.cli.bench import bench
from planish.cli.describe import describe
from planish.cli.doctor import doctor
from planish.cli.failure import report_failure
from planish.cli.filter import filter as filter_clips
from planish.cli.new import new
from planish.cli.plugins import plugins
from planish.cli.run import run
from planish.cli.schema import schema
from planish.cli.session import Session
from planish.cli.verbs import Verbs
from planish.errors import ConfigError
from planish.plugins.registry import Registry

app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"planish {planish.__version__}")
        raise typer.Exit


@app.callback(
    epilog="Start here:  planish doctor  ·  planish plugins  ·  planish describe NAME  ·  planish run RECIPE",
)
def _planish(
    block: Annotated[
        list[str] | None, typer.Option("-p", metavar="no:NAME", help="Block a plugin; may be given again.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Make PyTorch models cheaper to train and run. Each method is one installable plugin."""
    # -p and --debug are taken by split_options, before the verbs are known, because they change which verbs there are.


app.command()(plugins)
app.command()(describe)
app.command()(run)
app.command()(filter_clips)
app.command()(doctor)
app.command()(bench)
app.command()(new)
app.command()(schema)


def main(argv: Sequence[str] | None = None, registry: Registry | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process if None.
        registry: Plugins to use in place of those that are installed.

    Returns:
        0 ok, 1 failed work, 2 wrong input.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json, debug = "--json" in arguments, "--debug" in arguments
    command = typer.main.get_command(app)
    try:
        arguments, block, debug = split_options(arguments)
        options = Session(block, debug, registry)
        with command.make_context("planish", arguments or ["--help"], obj=options) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        # The reader, such as head, has gone. What is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return report_failure(error, as_json=as_json, debug=debug)
    return 0


def split_options(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...], bool]:
    """Take ``-p no:NAME`` and ``--debug`` out of a command line, wherever they stand.

    Returns:
        The other arguments, the blocked names, and whether ``--debug`` was there.

    Raises:
        ConfigError: What follows ``-p`` in front of the verb does not read ``no:NAME``.
    """
    rest: list[str] = []
    block: list[str] = []
    debug = False
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            rest += [argument, *remaining]
        elif argument == "--debug":
            debug = True
        elif argument.startswith("-pno:"):
            block.append(argument.removeprefix("-pno:"))
        elif argument == "-p":
            value = next(remaining, "")
            if value.startswith("no:") and value != "no:":
                block.append(value.removeprefix("no:"))
            elif all(part.startswith("-") for part in rest):
                raise ConfigError(f"-p {value!r}: expected no:NAME, such as -p no:lightning")
            else:
                rest += [argument, value]  # an option of the verb
        else:
            rest.append(argument)
    return rest, tuple(block), debug


if __name__ == "__main__":
    sys.exit(main())
