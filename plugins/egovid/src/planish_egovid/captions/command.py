"""``planish egovid caption``: action text for the clips of files, folders and manifests."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from planish.cli.options import read_options
from planish.cli.output import print_json
from planish.cli.session import Json
from planish.config import validate


def caption_command(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Media files, folders, and manifests (.csv, .jsonl, .parquet) with the columns path, id, start_s, "
            "end_s, text, extra.verb_cls, extra.noun_cls.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Captions: a .jsonl or .parquet file.")],
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Options: a YAML file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One option; goes before --config."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first so many clips only.")] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Caption clips again that an earlier run could not caption.")
    ] = False,
    max_error_frac: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with 1 if a larger share of the clips could not be captioned.")
    ] = 0.05,
    as_json: Json = False,
) -> None:
    """Write action text for clips: what is seen, and what the wearer does.

    The same command again captions only what is missing.

    Example: planish egovid caption clips.csv --out captions.parquet

    Example: planish egovid caption clips/ --out captions.jsonl --set backend=endpoint --set
    endpoint.model=Qwen/Qwen2.5-VL-7B-Instruct
    """
    from planish.filtering.manifest import find_clips

    from planish_egovid.captions.config import CaptionConfig, caption_backend
    from planish_egovid.captions.run import caption_clips
    from planish_egovid.filters import Text

    chosen = validate(CaptionConfig, read_options(config, settings or (), "--set"))
    clips = find_clips(paths, Text(), limit).clips
    summary = caption_clips(clips, caption_backend(chosen), out, chosen, retry_errors=retry_errors)
    too_many = summary.errors > max_error_frac * summary.clips
    if as_json:
        print_json({**asdict(summary), "out": str(summary.out), "exit_code": 1 if too_many else 0})
    else:
        typer.echo(
            f"{summary.out}: {summary.clips} clips, {summary.resumed} of them from an earlier run; "
            f"{summary.captioned} captioned, {summary.unusable} without a usable phrase, {summary.errors} with an error"
        )
    if too_many:
        typer.echo(f"error: {summary.errors} of {summary.clips} clips could not be captioned", err=True)
        raise typer.Exit(1)
