"""Telling the two kinds of lists of clips apart."""

from __future__ import annotations

import csv
from pathlib import Path

from planish.errors import DataError
from planish.filtering.manifest_file import SUFFIXES


def is_released(path: Path) -> bool:
    """Return whether a file is a table of the released data set, and not a manifest.

    Raises:
        DataError: It cannot be read, or is neither.
    """
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is no list of clips; give a released .csv, or a manifest ({', '.join(SUFFIXES)})")
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            header = next(csv.reader([file.readline()]), []) if path.suffix.lower() == ".csv" else []
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    return "video_id" in header
