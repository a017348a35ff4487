"""``planish egovid``: what is particular to egocentric data sets."""

from __future__ import annotations

import typer

from planish_egovid.captions.command import caption_command
from planish_egovid.cli.check import check
from planish_egovid.cli.estimate import estimate
from planish_egovid.cli.poses import poses
from planish_egovid.cli.room import room
from planish_egovid.cli.segment import segment
from planish_egovid.cli.split import split
from planish_egovid.cli.tables import export_csv, import_csv

egovid = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})


@egovid.callback(invoke_without_command=True)
def _egovid(context: typer.Context) -> None:
    """Keep the books of an egocentric data set: cut, check, split, caption, annotate, exchange.

    Scoring and deciding are done by 'planish filter … --with egovid'.

    Example: planish egovid room room/

    Example: planish egovid segment room/ --method windows --out clips.parquet

    Example: planish filter clips.parquet --with egovid --out scored

    Example: planish egovid split scored/ --kept --out sets/
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


egovid.command("segment")(segment)
egovid.command("check")(check)
egovid.command("split")(split)
egovid.command("caption")(caption_command)
egovid.command("poses")(poses)
egovid.command("import-csv")(import_csv)
egovid.command("export-csv")(export_csv)
egovid.command("estimate")(estimate)
egovid.command("room")(room)
