"""Reading narrations of videos from a CSV or JSON-lines file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planish.errors import DataError, did_you_mean

from planish_egovid.clips.segmenter import Narration

_NEEDED = ("video", "time_s", "text")


def read_narrations(path: str | Path) -> dict[str, list[Narration]]:
    """Return video -> narrations, by time.

    Columns: ``video``, the file's name with or without suffix; ``time_s``, seconds from its start; ``text``; others,
    such as ``noun_cls`` and ``verb_cls``, go to the clips' extra columns.

    Args:
        path: A ``.csv`` or ``.jsonl`` file.

    Raises:
        DataError: It cannot be read, or a row is wrong; the message has the row's number.
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: narrations are a {' or '.join(readers)} file with the columns {', '.join(_NEEDED)}")
    found: dict[str, list[Narration]] = {}
    try:
        for number, values in readers[path.suffix.lower()](path):
            video, narration = _narration(values, f"{path}, row {number}")
            found.setdefault(video, []).append(narration)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); convert it") from None
    return {video: sorted(narrations, key=lambda n: n.time_s) for video, narrations in found.items()}


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():
                    raise DataError(f"{path}, row {number}: not as many cells as columns; quote texts with commas")
                yield number, row
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, row {number}: no JSON ({error.msg})") from None
            if not isinstance(values, dict):
                raise DataError(f"{path}, row {number}: expected an object, found {str(values)[:40]}")
            yield number, values


def _narration(values: Mapping[str, Any], where: str) -> tuple[str, Narration]:
    for name in _NEEDED:
        if name not in values:
            raise DataError(f"{where}: no column {name!r}{did_you_mean(name, values)}; expected {', '.join(_NEEDED)}")
    try:
        time_s = float(values["time_s"])
    except (TypeError, ValueError):
        time_s = math.nan
    if not math.isfinite(time_s):
        raise DataError(f"{where}: time_s is {values['time_s']!r}; expected seconds")
    video = str(values["video"]).strip()
    if not video:
        raise DataError(f"{where}: video is empty")
    extra = {name: value for name, value in values.items() if name not in _NEEDED and value not in ("", None)}
    return Path(video).stem if Path(video).suffix else video, Narration(time_s, str(values["text"]).strip(), extra)
