"""``planish egovid split``: train and validation sets that share no source video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from planish.cli.output import print_json
from planish.cli.session import Json
from planish.errors import ConfigError, DataError


def split(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIR", help="A released table, a manifest, or the folder of a 'planish filter' run."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the two lists.")],
    val_fraction: Annotated[float, typer.Option(min=0, max=1, help="Share of the sources for validation.")] = 0.02,
    seed: Annotated[int, typer.Option(help="Another seed draws other sources.")] = 0,
    kept: Annotated[bool, typer.Option("--kept", help="Of a run: only clips that its latest decision keeps.")] = False,
    as_json: Json = False,
) -> None:
    """Write train and validation lists that share no source video.

    A source belongs to a set by a hash of its name: it stays there when other clips come or go. A released table is
    split into tables, anything else into manifests.

    Example: planish egovid split egovid-text.csv --val-fraction 0.001 --out sets/

    Example: planish egovid split scored/ --kept --out sets/
    """
    from planish_egovid.cli.list_file import is_released
    from planish_egovid.clips.manifest_file import types_of, write_manifest
    from planish_egovid.clips.split import shared_sources
    from planish_egovid.clips.split import split as split_clips

    if kept and not file.is_dir():
        raise ConfigError(f"--kept needs the folder of a 'planish filter' run; {file} is none")
    if not file.is_dir() and is_released(file):
        result = _split_table(file, out, val_fraction, seed)
    else:
        suffix = ".parquet" if file.is_dir() else file.suffix.lower()
        clips = list(_clips(file, kept))
        if not clips:
            raise DataError(f"{file} has no clips{' that are kept' if kept else ''}")
        train, val = split_clips(clips, val_fraction, seed)
        overlap = shared_sources(train, val)
        if overlap:
            raise DataError(f"{overlap[0]!r} came into both sets; give its clips ids of the form SOURCE_START_END")
        extra = types_of(clips)
        for name, part in (("train", train), ("val", val)):
            write_manifest(out / f"{name}{suffix}", part, extra)
        result = _result(out, suffix, train, val)
    if as_json:
        print_json(result)
        return
    for name in ("train", "val"):
        part = result[name]
        print(f"{part['file']}: {part['clips']:,} clips of {part['sources']:,} sources")


def _clips(file: Path, kept: bool) -> Iterator[Any]:
    if not file.is_dir():
        from planish.filtering.manifest_file import read_manifest

        yield from (clip for _, clip in read_manifest(file))
        return
    from planish.filtering import ScoreStore

    from planish_egovid.clips.released_exchange import kept_ids

    store = ScoreStore.open(file)
    wanted = kept_ids(store) if kept else None
    yield from (clip for clip in store.clips() if wanted is None or clip.id in wanted)


def _split_table(file: Path, out: Path, val_fraction: float, seed: int) -> dict[str, Any]:
    """Split a released table, which may not fit into memory: once through it for each part."""
    from planish_egovid.clips.released_csv import read_egovid_csv, write_egovid_csv
    from planish_egovid.clips.split import part_of

    table = read_egovid_csv(file)
    sources: dict[str, set[str]] = {"train": set(), "val": set()}
    counts: dict[str, int] = {}
    for name in ("train", "val"):

        def rows(name: str = name) -> Iterator[Any]:
            for row in table:
                source = row.clip_id.source
                if part_of(source, val_fraction, seed) == name:
                    sources[name].add(source)
                    yield row

        counts[name] = write_egovid_csv(out / f"{name}.csv", rows(), table.columns, table.line_end)
    return {
        name: {"file": str(out / f"{name}.csv"), "clips": counts[name], "sources": len(sources[name])}
        for name in ("train", "val")
    }


def _result(out: Path, suffix: str, train: list[Any], val: list[Any]) -> dict[str, Any]:
    from planish_egovid.clips.split import source_of

    return {
        name: {
            "file": str(out / f"{name}{suffix}"),
            "clips": len(part),
            "sources": len({source_of(clip) for clip in part}),
        }
        for name, part in (("train", train), ("val", val))
    }
