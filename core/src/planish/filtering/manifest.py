"""The clips of a run, from files, folders and manifests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from planish.errors import DataError
from planish.filtering.manifest_file import SUFFIXES, read_manifest
from planish.interfaces.data_filter import Clip, DataFilter

_log = logging.getLogger(__name__)
_NO_MANIFESTS = (".json", ".tsv", ".txt", ".xls", ".xlsx", ".yaml", ".yml")
"""Suffixes of lists in formats that are not read; naming one is a mistake rather than a clip."""


@dataclass
class Manifest:
    """What a run is about.

    Attributes:
        clips: With unique ids, in the order of the paths given, within a folder by name.
        unreadable: Folders that could not be looked into, each with the reason.
    """

    clips: list[Clip] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def find_clips(paths: Sequence[str | Path], data_filter: DataFilter, limit: int | None = None) -> Manifest:
    """Return the clips of media files, of the media files in folders, and of manifests.

    Folders are searched for the filter's suffixes, with their subfolders, each once however many links lead there;
    names that begin with a dot are left out. Paths of clips are absolute.

    Args:
        paths: Files, folders and manifests (``.csv``, ``.jsonl``, ``.parquet``).
        data_filter: Says which files it reads and which clips a file has.
        limit: Stop after so many clips.

    Raises:
        DataError: A path does not exist or cannot be read, a manifest is wrong, an id occurs twice, or there is
            nothing.
    """
    manifest = Manifest()
    origins: dict[str, str] = {}
    for clip, origin in _clips(paths, data_filter, manifest.unreadable):
        if clip.id in origins:
            raise DataError(
                f"the id {clip.id!r} occurs twice: {origins[clip.id]} and {origin}; give the clips ids of their own "
                "in a manifest"
            )
        origins[clip.id] = origin
        manifest.clips.append(clip)
        if limit is not None and len(manifest.clips) >= limit:
            break
    if not manifest.clips:
        where = ", ".join(str(path) for path in paths)
        more = f"; could not look into {'; '.join(manifest.unreadable[:3])}" if manifest.unreadable else ""
        raise DataError(
            f"no clips in {where}: {data_filter.name} reads {', '.join(data_filter.suffixes)}, and manifests "
            f"{', '.join(SUFFIXES)}{more}"
        )
    return manifest


def _clips(paths: Sequence[str | Path], data_filter: DataFilter, unreadable: list[str]) -> Iterator[tuple[Clip, str]]:
    """Yield each clip and where it comes from."""
    seen: set[str] = set()
    for given in paths:
        path = Path(given).expanduser()
        if not os.path.lexists(path):
            raise DataError(f"{given} does not exist")
        if path.is_dir():
            files: Iterator[str] = _media(path, data_filter.suffixes, unreadable)
        elif _is_manifest(path, data_filter):
            yield from ((clip, f"{path}, row {number}") for number, clip in read_manifest(path))
            continue
        else:
            files = iter([os.path.abspath(path)])
        for file in files:
            if file not in seen:
                seen.add(file)
                yield from ((clip, file) for clip in _clips_of(file, data_filter))


def _is_manifest(path: Path, data_filter: DataFilter) -> bool:
    suffix = path.suffix.lower()
    if suffix in data_filter.suffixes:
        return False
    if suffix in _NO_MANIFESTS:
        raise DataError(f"{path}: a manifest is {', '.join(SUFFIXES)}, and {suffix} is no media file")
    return suffix in SUFFIXES


def _clips_of(file: str, data_filter: DataFilter) -> list[Clip]:
    try:
        return data_filter.clips_of(Path(file))
    except DataError as error:
        _log.debug("%s is scored whole: %s", file, error)
        return [Clip(file, file)]


def _media(folder: Path, suffixes: Sequence[str], unreadable: list[str]) -> Iterator[str]:
    """Yield the media files of a folder and its subfolders by name, as absolute paths."""
    visited: set[tuple[int, int]] = set()
    pending = [os.path.abspath(folder)]
    while pending:
        here = pending.pop()
        try:
            found = os.stat(here)
            if (found.st_dev, found.st_ino) in visited:
                continue
            visited.add((found.st_dev, found.st_ino))
            with os.scandir(here) as entries:
                inside = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            _log.warning("cannot look into %s: %s", here, error.strerror or error)
            unreadable.append(f"{here} ({error.strerror or error})")
            continue
        folders = []
        for entry in inside:
            if _is_folder(entry):
                folders.append(entry.path)
            elif entry.name.lower().endswith(tuple(suffixes)):
                yield entry.path
        pending += reversed(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False
