"""``planish egovid poses``: camera poses as files, in the layout of the released ones."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from planish.cli.options import read_options
from planish.cli.output import print_json
from planish.cli.session import Json, session
from planish.config import validate
from planish.interfaces import Clip

_GROUP = 8


def poses(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Video files, folders, and manifests; extra.imu names a clip's inertial recording.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder; poses go to DIR/poses/ID.")],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Options of the kinematics axis: a YAML file.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One option, such as assume_fov_deg=90; goes before --config."),
    ] = None,
    engine: Annotated[str, typer.Option(help="What runs it: local, or such as ray.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; left out: one for each core.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first so many clips only.")] = None,
    max_error_frac: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with 1 if a larger share of the clips got no poses.")
    ] = 0.05,
    as_json: Json = False,
) -> None:
    """Write camera poses of all frames: intri.npy, sfm_pose.npy, imu_pose.npy, fused_pose.npy.

    Camera-to-world matrices, [frames, 4, 4]. What is not known is not written: without an inertial recording there are
    no metres, and without intrinsics no poses at all ('--set assume_fov_deg=90' assumes some).

    Example: planish egovid poses clips.parquet --out annotated --workers 8
    """
    from planish.filtering.manifest import find_clips
    from planish.interfaces import FilterJob

    from planish_egovid.cli.pose_writer import PoseWriter
    from planish_egovid.cli.progress import progress
    from planish_egovid.filters import Kinematics
    from planish_egovid.kinematics.config import KinematicsConfig

    chosen = validate(KinematicsConfig, read_options(config, settings or (), "--set"))
    clips = find_clips(paths, Kinematics(), limit).clips
    kind = session(context).registry.load(engine, "filter_engine")
    runs_on = kind({} if workers is None else {"workers": workers})
    writer = PoseWriter({"out": str(out.absolute()), "kinematics": chosen.model_dump(mode="json")})
    rows: dict[str, Any] = {}
    with progress("posing", len(clips), quiet=as_json) as advance:
        for some in runs_on.run(FilterJob.of(writer), _groups(clips)):
            for row in some:
                rows[row.clip_id] = row
                advance()
    failed = {clip.id: rows[clip.id].error for clip in clips if rows[clip.id].error}
    files = Counter(name for row in rows.values() for name in row.files or ())
    too_many = len(failed) > max_error_frac * len(clips)
    if as_json:
        found = [rows[clip.id].model_dump(mode="json") for clip in clips]
        print_json({"out": str(out), "clips": found, "errors": len(failed), "exit_code": 1 if too_many else 0})
    else:
        _show(out, clips, rows, files, failed)
    if too_many:
        sys.stderr.write(f"error: {len(failed)} of {len(clips)} clips got no poses\n")
        raise typer.Exit(1)


def _groups(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    """Yield clips of one file together, a few at a time."""
    for _, same in groupby(sorted(clips, key=lambda clip: (clip.path, clip.start_s)), key=lambda clip: clip.path):
        group = list(same)
        yield from (group[start : start + _GROUP] for start in range(0, len(group), _GROUP))


def _show(out: Path, clips: Sequence[Clip], rows: dict[str, Any], files: Counter[str], failed: dict[str, str]) -> None:
    print(f"{out / 'poses'}: {len(clips) - len(failed):,} of {len(clips):,} clips")
    for name, count in sorted(files.items()):
        print(f"  {name}: {count:,}")
    reasons = Counter(row.reason for row in rows.values() if row.reason)
    for reason, count in reasons.most_common(5):
        print(f"{count:,} × {reason}")
    for reason, count in Counter(failed.values()).most_common(5):
        print(f"{count:,} without poses: {reason}")
