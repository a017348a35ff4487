"""Between the released tables and what ``planish filter`` reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from planish.errors import DataError
from planish.interfaces import Clip, DataFilter, Row

from planish_egovid.clips.frame_rate import rational_fps, to_frame
from planish_egovid.clips.ids import ClipId, ClipIdError, parse_clip_id
from planish_egovid.clips.manifest_file import check_manifest_name, write_manifest
from planish_egovid.clips.released_csv import (
    COLUMNS,
    IMU_COLUMNS,
    KINDS,
    SCORES,
    ReleasedCsv,
    ReleasedRow,
    parsed,
    read_egovid_csv,
    write_egovid_csv,
)
from planish_egovid.clips.source_files import SourceFiles

if TYPE_CHECKING:
    from planish.filtering import ScoreStore

_TYPES = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "floats": pa.list_(pa.float64())}


@dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    Attributes:
        out: The manifest.
        clips: Number of clips.
        missing_sources: Source videos that have no file, sorted.
    """

    out: Path
    clips: int
    missing_sources: tuple[str, ...]


def import_egovid_csv(table: str | Path, out: str | Path, videos: str | Path | None = None) -> ImportSummary:
    """Write a released table as a manifest.

    A clip becomes frames ``[StartFrame, EndFrame)`` of ``<source>.mp4``, or the whole of ``<video_id>.mp4`` where only
    that is there. ``name`` becomes its text; everything else, scores and IMU values among it, its extra columns.

    Args:
        table: The CSV file.
        out: A ``.parquet``, ``.jsonl`` or ``.csv`` file.
        videos: Folder of the video files; None for the folder of the table.

    Raises:
        ClipIdError: An id cannot be read; the message has the row's number.
        DataError: The table cannot be read, a cell is wrong, ``fps`` is missing or not above 0, or an id occurs twice.
        ConfigError: ``out`` has another suffix.
        WorkError: ``out`` cannot be written.
    """
    released = read_egovid_csv(table)
    check_manifest_name(Path(out))
    files = SourceFiles(Path(videos) if videos is not None else Path(table).absolute().parent)
    files.folder = files.folder.absolute()
    names = [name for name in released.columns if name not in ("video_id", "name")]
    extra = {name: _TYPES[KINDS.get(name, "text")] for name in names}
    clips = write_manifest(Path(out), released_clips(released, files), extra)
    return ImportSummary(Path(out), clips, tuple(sorted(files.missing)))


def released_clips(released: ReleasedCsv, files: SourceFiles) -> Iterator[Clip]:
    """Yield the clips of a released table, with all other columns as ``extra``.

    Raises:
        ClipIdError: An id cannot be read.
        DataError: A cell is wrong, ``fps`` is missing or not above 0, or an id occurs twice.
    """
    rows: dict[str, int] = {}
    for row in released:
        parsed = row.clip_id
        key = str(ClipId(parsed.source, parsed.start, parsed.end))
        if key in rows:
            raise DataError(f"{released.path}, row {row.number}: clip {key!r} stands in row {rows[key]} already")
        rows[key] = row.number
        try:
            fps = rational_fps(row.values.get("fps") or 0.0)
        except DataError as error:
            raise DataError(f"{released.path}, row {row.number}: {error}") from None
        more = {name: value for name, value in row.values.items() if name not in ("video_id", "name")}
        yield files.clip(row.values["video_id"].strip(), parsed, fps, row.values.get("name"), more)


def export_egovid_csv(folder: str | Path, out: str | Path, data_filter: DataFilter, *, kept_only: bool = False) -> int:
    """Write the scores of a ``planish filter`` run in the released form and return the number of rows.

    Ids that are of another form are made from the file's name and the clip's frames. A clip with an error has empty
    scores. ``noun_cls``, ``verb_cls``, ``llava_cap`` and the IMU columns come from the clips' extra columns; the latter
    are written if any clip has them.

    Args:
        folder: What ``planish filter --out`` names.
        out: The CSV file.
        data_filter: The filter of that run.
        kept_only: Whether only clips that the latest decision keeps are written.

    Raises:
        DataError: The folder is no output of ``planish filter``, or has no decisions.
        WorkError: The file cannot be written.
    """
    from planish.filtering import ScoreStore

    store = ScoreStore.open(folder)
    clips = {clip.id: clip for clip in store.clips()}
    kept = kept_ids(store) if kept_only else None
    has_imu = any(clip.extra.get(name) is not None for clip in clips.values() for name in IMU_COLUMNS)
    columns = (*COLUMNS, *IMU_COLUMNS) if has_imu else COLUMNS
    chosen = (row for row in store.rows(data_filter) if kept is None or row.clip_id in kept)
    rows = (released_row(number, clips[row.clip_id], row) for number, row in enumerate(chosen, start=1))
    return write_egovid_csv(out, rows, columns)


def kept_ids(store: ScoreStore) -> set[str]:
    """Return the ids of the clips that the latest decision on a run keeps.

    Raises:
        DataError: There are no decisions.
    """
    from planish.filtering.decisions import read_decisions

    table, _ = read_decisions(store.folder, store.identity)
    return {
        clip_id for clip_id, keep in zip(table["clip_id"].to_pylist(), table["keep"].to_pylist(), strict=True) if keep
    }


def released_row(number: int, clip: Clip, row: Row) -> ReleasedRow:
    """Return a clip and its scores as a row of the released table.

    Raises:
        DataError: The clip's id is of another form, and neither its row nor its extra columns say frames a second.
    """
    extra: Mapping[str, Any] = clip.extra
    fps = getattr(row, "fps", None) or _number(extra.get("fps"))
    try:
        parse_clip_id(clip.id)
        video_id = clip.id
    except ClipIdError:
        video_id = _made_id(clip, fps, getattr(row, "duration_s", None))
    frames = getattr(row, "frames_actual", None)
    values: dict[str, Any] = {
        "video_id": video_id,
        "frame_num": parse_clip_id(video_id).frames if frames is None else frames,
        "fps": fps,
        "name": clip.text,
        **{name: extra.get(name) for name in ("noun_cls", "verb_cls", "llava_cap")},
        **{name: _numbers(extra.get(name)) for name in IMU_COLUMNS},
        **{name: getattr(row, name, None) for name in SCORES},
    }
    return ReleasedRow(number, values)


def _made_id(clip: Clip, fps: float | None, duration_s: float | None) -> str:
    end_s = clip.end_s if clip.end_s is not None or duration_s is None else clip.start_s + duration_s
    if fps is None or end_s is None:
        raise DataError(
            f"clip {clip.id!r} could not be scored, so that its frames are not known; give it an id SOURCE_START_END"
        )
    rate = rational_fps(fps)
    return str(ClipId(Path(clip.path).stem, to_frame(clip.start_s, rate), to_frame(end_s, rate)))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _numbers(value: Any) -> Sequence[float] | None:
    found: Sequence[float] | None = parsed(value, "floats") if isinstance(value, str) else value
    return found
