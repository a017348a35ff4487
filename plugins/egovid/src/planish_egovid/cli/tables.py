"""``planish egovid import-csv`` and ``export-csv``: the released tables, to and fro."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from planish.cli.output import print_json
from planish.cli.session import Json, session
from planish.errors import ConfigError


def import_csv(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Such as egovid-val.csv.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The manifest: a .parquet, .jsonl or .csv file.")],
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of SOURCE.mp4 or VIDEO_ID.mp4 files; left out: the folder of the table."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a manifest of a released table, for scoring and for posing.

    Its scores and IMU values become extra columns. To decide on the published scores themselves, without any video:
    planish filter TABLE --with egovid-released --out DIR.

    Example: planish egovid import-csv egovid-kinematic.csv --videos ego4d/video_540ss --out clips.parquet
    """
    from planish_egovid.clips import import_egovid_csv

    done = import_egovid_csv(table, out, videos)
    missing = done.missing_sources
    if as_json:
        print_json({"out": str(done.out), "clips": done.clips, "missing_sources": list(missing)})
        return
    print(f"{done.out}: {done.clips:,} clips")
    if missing:
        sys.stderr.write(
            f"{len(missing):,} source videos are missing, such as {missing[0]!r}; their clips are listed\n"
        )


def export_csv(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a 'planish filter' run.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The table: a .csv file.")],
    kept: Annotated[bool, typer.Option("--kept", help="Only clips that the latest decision keeps.")] = False,
    as_json: Json = False,
) -> None:
    """Write the scores of a run in the columns of the released tables.

    Example: planish egovid export-csv scored/ --kept --out my-egovid.csv
    """
    from planish.filtering import ScoreStore

    from planish_egovid.clips import export_egovid_csv

    if out.suffix.lower() != ".csv":
        raise ConfigError(f"--out: {out} is no .csv file; the released form is CSV")
    run = ScoreStore.open(folder).run
    data_filter = session(context).registry.load(run.filter, "data_filter")(run.params)
    rows = export_egovid_csv(folder, out, data_filter, kept_only=kept)
    if as_json:
        print_json({"out": str(out), "rows": rows})
    else:
        print(f"{out}: {rows:,} rows")
