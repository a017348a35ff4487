"""``planish egovid segment``: from videos to a manifest of clips."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from planish.cli.options import read_options
from planish.cli.output import print_json
from planish.cli.session import Json
from planish.config import validate
from planish.errors import ConfigError, DataError


def segment(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Video files, and folders of them.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The manifest: a .parquet, .jsonl or .csv file.")],
    method: Annotated[
        str | None,
        typer.Option(help="windows, scenes, pyscenedetect, narrations or whole; left out: as --config says, or whole."),
    ] = None,
    narrations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For narrations: .csv or .jsonl with the columns video, time_s, text."),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Options: a YAML file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One option, such as length_s=4; goes before --config."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Cut videos into clips. No video is written: a clip is a range of a file.

    Options, by --set: length_s, stride_s, rest (drop, keep) for windows; min_frames, max_s for scenes and narrations;
    policy (egoclip, fixed, midpoint) and mean_gap_s for narrations. Without mean_gap_s, the egoclip rule takes the
    mean over the videos given.

    A file that cannot be read is listed whole, so that scoring gives it a row with its error.

    Example: planish egovid segment videos/ --method windows --set length_s=4 --out clips.parquet

    Example: planish egovid segment videos/ --method narrations --narrations said.csv --out clips.parquet
    """
    from planish.filtering.manifest import find_clips
    from planish.interfaces import Clip

    from planish_egovid.cli.progress import progress
    from planish_egovid.clips import SegmentConfig, Source, make_segmenter, mean_gap
    from planish_egovid.clips.manifest_file import check_manifest_name, types_of, write_manifest
    from planish_egovid.clips.narration_file import read_narrations
    from planish_egovid.clips.windows import WholeSegmenter
    from planish_egovid.filters import EgoVid
    from planish_egovid.video import probe

    values = read_options(config, settings or (), "--set")
    if method is not None:
        values["method"] = method
    chosen = validate(SegmentConfig, values)
    if (chosen.method == "narrations") != (narrations is not None):
        raise ConfigError("--method narrations and --narrations FILE go together; one of them is missing")
    check_manifest_name(out)
    said = {} if narrations is None else read_narrations(narrations)
    if chosen.method == "narrations" and chosen.policy == "egoclip" and chosen.mean_gap_s is None:
        chosen = chosen.model_copy(update={"mean_gap_s": mean_gap(said)})
    segmenter = make_segmenter(chosen)
    files = sorted({clip.path for clip in find_clips(paths, EgoVid()).clips})
    stems = Counter(Path(file).stem for file in files)
    twice = [stem for stem, count in stems.items() if count > 1]
    if twice and chosen.method != "whole":
        raise DataError(f"two files are called {twice[0]!r}, so that ids of their clips would be the same; rename one")
    unknown = sorted(set(said) - set(stems))
    if unknown:
        sys.stderr.write(f"{len(unknown)} narrated videos are not among the files, such as {unknown[0]!r}\n")
    clips: list[Clip] = []
    unreadable: dict[str, str] = {}
    without: list[str] = []
    with progress("cutting", len(files), quiet=as_json) as advance:
        for file in files:
            try:
                if isinstance(segmenter, WholeSegmenter):
                    found = [Clip(file, file)]
                else:
                    found = segmenter.clips(Source.of(file, probe(file), said.get(Path(file).stem, [])))
            except ConfigError:
                raise
            except DataError as error:
                unreadable[file] = str(error)
                found = [Clip(file, file)]
            if not found:
                without.append(file)
            clips += found
            advance()
    if not clips:
        raise DataError(
            f"none of {len(files)} videos gave a clip; lower min_frames or length_s, or check the videos' lengths"
        )
    write_manifest(out, clips, types_of(clips))
    result: dict[str, Any] = {
        "out": str(out),
        "videos": len(files),
        "clips": len(clips),
        "seconds": round(sum(clip.end_s - clip.start_s for clip in clips if clip.end_s is not None), 3),
        "unreadable": unreadable,
        "without_clips": without,
        "mean_gap_s": chosen.mean_gap_s,
    }
    if as_json:
        print_json(result)
        return
    print(f"{out}: {len(clips):,} clips of {len(files):,} videos")
    for file, why in unreadable.items():
        print(f"listed whole, because it cannot be cut: {why if file in why else f'{file}: {why}'}")
    for file in without:
        print(f"no clips: {file}")
