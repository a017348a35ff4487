"""Checking lists of clips before days of work are spent on them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from planish.errors import DataError
from planish.interfaces import Clip

from planish_egovid.clips.frame_rate import rational_fps
from planish_egovid.clips.ids import ClipId, ClipIdError, parse_clip_id
from planish_egovid.clips.released_csv import ReleasedCsv, parsed
from planish_egovid.clips.source_files import SourceFiles

Kind = Literal[
    "bad_row", "bad_id", "duplicate_id", "bad_fps", "bad_span", "frame_num", "missing_source", "beyond_end", "duration"
]
KINDS: dict[Kind, str] = {
    "bad_row": "the row has too few or too many cells, or a cell of the wrong kind",
    "bad_id": "the id cannot be read, or its start is not below its end",
    "duplicate_id": "the id stands in an earlier row already",
    "bad_fps": "frames a second is missing, not a number or not above 0",
    "bad_span": "the clip does not end after its start",
    "frame_num": "frame_num is not the number of frames that the id says",
    "missing_source": "the video file is not there",
    "beyond_end": "the clip ends after its file",
    "duration": "the clip is much shorter or longer than the others",
}
"""What can be found, and what it means."""
OUTLIER = 5.0
"""How many times the median duration, or which part of it, is out of the ordinary."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a clip.

    Attributes:
        kind: One of :data:`KINDS`.
        row: Number of the row, from 1.
        clip_id: As it is written.
        detail: The value found.
    """

    kind: Kind
    row: int
    clip_id: str
    detail: str


def check_released(
    table: ReleasedCsv, videos: str | Path | None = None, *, probe_files: bool = False, outlier: float = OUTLIER
) -> Iterator[Finding]:
    """Yield what is wrong with a released table. A wrong row does not end the check.

    Args:
        table: The table.
        videos: Folder of the video files; None to leave them alone.
        probe_files: Whether to open each file and compare its length.
        outlier: How many times the median duration is out of the ordinary.

    Raises:
        DataError: The file is no CSV.
    """
    files = None if videos is None else SourceFiles(Path(videos))
    ids = _Ids()
    lengths: list[tuple[int, str, float]] = []
    ends = _Ends() if probe_files else None
    place = {name: index for index, name in enumerate(table.columns)}

    def cell(cells: list[str], name: str) -> str:
        return cells[place[name]] if name in place else ""

    for number, _, cells in table.cells():
        if len(cells) != len(table.columns):
            yield Finding("bad_row", number, cells[0], f"{len(cells)} cells for {len(table.columns)} columns")
            continue
        written = cell(cells, "video_id")
        try:
            clip_id = parse_clip_id(written)
        except ClipIdError as error:
            yield Finding("bad_id", number, written, str(error))
            continue
        yield from ids.seen(number, clip_id)
        try:
            frames = parsed(cell(cells, "frame_num"), "int")
        except ValueError:
            yield Finding("bad_row", number, written, f"frame_num is {cell(cells, 'frame_num')!r}")
            frames = None
        if frames is not None and frames != clip_id.frames:
            yield Finding("frame_num", number, written, f"frame_num {frames}, the id says {clip_id.frames}")
        try:
            fps = rational_fps(parsed(cell(cells, "fps"), "float") or 0.0)
        except (ValueError, DataError):
            yield Finding("bad_fps", number, written, f"fps is {cell(cells, 'fps')!r}")
            continue
        lengths.append((number, written, float(clip_id.frames / fps)))
        if files is not None:
            clip = files.clip(written, clip_id, fps, None, {})
            yield from _file(number, clip, ends, tolerance_s=float(1 / fps))
    yield from _outliers(lengths, outlier)


def check_clips(clips: Iterable[Clip], *, probe_files: bool = False, outlier: float = OUTLIER) -> Iterator[Finding]:
    """Yield what is wrong with clips, such as those of a manifest.

    Args:
        clips: The clips; ids of any form.
        probe_files: Whether to open each file and compare its length.
        outlier: How many times the median duration is out of the ordinary.
    """
    seen: dict[str, int] = {}
    lengths: list[tuple[int, str, float]] = []
    ends = _Ends() if probe_files else None
    for number, clip in enumerate(clips, start=1):
        if clip.id in seen:
            yield Finding("duplicate_id", number, clip.id, f"row {seen[clip.id]} has it too")
        seen.setdefault(clip.id, number)
        if clip.end_s is not None:
            if not clip.end_s > clip.start_s:
                yield Finding("bad_span", number, clip.id, f"from {clip.start_s:g} s to {clip.end_s:g} s")
                continue
            lengths.append((number, clip.id, clip.end_s - clip.start_s))
        fps: Any = clip.extra.get("fps")
        if fps is not None and not (isinstance(fps, int | float) and math.isfinite(fps) and fps > 0):
            yield Finding("bad_fps", number, clip.id, f"fps is {fps!r}")
        yield from _file(number, clip, ends, tolerance_s=0.05)
    yield from _outliers(lengths, outlier)


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return kind -> number of findings, in the order of :data:`KINDS`, without those of none."""
    counted = Counter(finding.kind for finding in findings)
    return {kind: counted[kind] for kind in KINDS if counted[kind]}


class _Ids:
    def __init__(self) -> None:
        self._rows: dict[tuple[str, int, int], int] = {}

    def seen(self, number: int, clip_id: ClipId) -> Iterator[Finding]:
        key = (clip_id.source, clip_id.start, clip_id.end)
        if key in self._rows:
            yield Finding("duplicate_id", number, str(clip_id), f"row {self._rows[key]} has it too")
        self._rows.setdefault(key, number)


class _Ends:
    """Lengths of files, each opened once."""

    def __init__(self) -> None:
        self._known: dict[str, float | str] = {}

    def of(self, path: str) -> float | str | None:
        """Return a file's seconds, or why they are not known."""
        from planish_egovid.video import probe

        if path not in self._known:
            try:
                self._known[path] = probe(path).duration_s or "the container does not say how long it is"
            except DataError as error:
                self._known[path] = str(error)
        return self._known[path]


def _file(number: int, clip: Clip, ends: _Ends | None, tolerance_s: float) -> Iterator[Finding]:
    if "://" in clip.path:
        return
    if not Path(clip.path).is_file():
        yield Finding("missing_source", number, clip.id, clip.path)
        return
    if ends is None:
        return
    length = ends.of(clip.path)
    if isinstance(length, str):
        yield Finding("missing_source", number, clip.id, length)
    elif length is not None and max(clip.end_s or 0.0, clip.start_s) > length + tolerance_s:
        yield Finding("beyond_end", number, clip.id, f"ends at {clip.end_s or clip.start_s:g} s of {length:g} s")


def _outliers(lengths: list[tuple[int, str, float]], factor: float) -> Iterator[Finding]:
    if not lengths:
        return
    usual = median(seconds for _, _, seconds in lengths)
    for number, clip_id, seconds in lengths:
        if seconds > usual * factor or seconds * factor < usual:
            yield Finding("duration", number, clip_id, f"{seconds:.3g} s; the median is {usual:.3g} s")
