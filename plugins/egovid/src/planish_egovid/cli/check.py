"""``planish egovid check``: what is wrong with a list of clips."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from planish.cli.output import plain_table, print_json, print_table
from planish.cli.session import Json

_SHOWN = 5


def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A released table (.csv), or a manifest (.csv, .jsonl, .parquet)."),
    ],
    videos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the videos of a released table; left out: not looked for."),
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Open every video and compare clips with its length.")] = False,
    outlier: Annotated[
        float, typer.Option(min=1.0, help="How many times the median duration is out of the ordinary.")
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Find what is wrong with a list of clips before days of work are spent on it.

    Ids that cannot be read or occur twice, clips that do not end after their start, missing videos, frames a second
    that are none, durations out of the ordinary. The exit code is 1 if anything is found.

    Example: planish egovid check egovid-val.csv --videos ego4d/video_540ss

    Example: planish egovid check clips.parquet --probe
    """
    from planish.filtering.manifest_file import read_manifest

    from planish_egovid.cli.list_file import is_released
    from planish_egovid.clips.integrity import KINDS, check_clips, check_released, counts
    from planish_egovid.clips.released_csv import read_egovid_csv

    if is_released(file):
        found = list(check_released(read_egovid_csv(file), videos, probe_files=probe, outlier=outlier))
    else:
        found = list(check_clips((clip for _, clip in read_manifest(file)), probe_files=probe, outlier=outlier))
    if as_json:
        print_json({"file": str(file), "counts": counts(found), "findings": [asdict(finding) for finding in found]})
    elif not found:
        print(f"{file}: nothing is wrong")
    else:
        table = plain_table("COUNT", "KIND", "MEANING")
        for kind, count in counts(found).items():
            table.add_row(f"{count:,}", kind, KINDS[kind])  # type: ignore[index]
        print_table(table)
        for kind in counts(found):
            some = [finding for finding in found if finding.kind == kind]
            for finding in some[:_SHOWN]:
                print(f"{kind}: row {finding.row}, {finding.clip_id}: {finding.detail}")
            if len(some) > _SHOWN:
                print(f"{kind}: {len(some) - _SHOWN:,} more; --json lists all")
    if found:
        raise typer.Exit(1)
