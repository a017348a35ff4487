"""Manifests: files that list clips, as CSV, JSON lines or Parquet.

Columns are ``path`` and, all optional, ``id``, ``start_s``, ``end_s``, ``text`` and ``extra.NAME``; what JSON lines and
Parquet hold as an object ``extra`` is the same. A relative path is relative to the manifest. So is an extra column
whose name ends in ``_path`` or whose value begins with ``./`` or ``../``.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planish.errors import DataError, did_you_mean
from planish.interfaces.data_filter import Clip

SUFFIXES = (".csv", ".jsonl", ".parquet")
_COLUMNS = ("path", "id", "start_s", "end_s", "text")


def read_manifest(path: Path) -> Iterator[tuple[int, Clip]]:
    """Yield the number of each row, from 1, and its clip.

    Raises:
        DataError: The manifest cannot be read, or a row is wrong; the message has the row's number.
    """
    rows = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}[path.suffix.lower()](path)
    folder = Path(os.path.abspath(path)).parent
    known: frozenset[str] = frozenset()
    try:
        for number, values in rows:
            if not values.keys() <= known:
                _check_columns(values, f"{path}, row {number}")
                known |= values.keys()
            yield number, _clip(values, folder, f"{path}, row {number}")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            _check_columns(dict.fromkeys(header), f"{path}, header")
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise DataError(f"{path}, header: column {twice!r} occurs twice")
            number = 0
            for cells in reader:
                if not cells:
                    continue
                number += 1
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}, row {number}: {len(cells)} values for {len(header)} columns; quote values with commas"
                    )
                yield number, dict(zip(header, cells, strict=True))
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
                raise DataError(f"{path}, row {number}: no JSON ({error.msg} at column {error.colno})") from None
            if not isinstance(values, dict):
                raise DataError(f"{path}, row {number}: expected an object, found {_shown(values)}")
            yield number, values


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(dict.fromkeys(file.schema_arrow.names), f"{path}, schema")
            number = 0
            for batch in file.iter_batches(batch_size=8192):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except pa.ArrowException as error:
        raise DataError(f"{path} is no readable Parquet file: {' '.join(str(error).split())}") from None


def _check_columns(values: Mapping[str, Any], where: str) -> None:
    for name in values:
        if name not in _COLUMNS and name != "extra" and not name.startswith("extra."):
            hint = did_you_mean(name, _COLUMNS) or f"; columns of your own are named extra.{name or 'NAME'}"
            raise DataError(f"{where}: unknown column {name!r}{hint}")
    if "path" not in values:
        raise DataError(
            f"{where}: no column 'path'; expected path and, optional, {', '.join(_COLUMNS[1:])}, extra.NAME"
        )


def _clip(values: Mapping[str, Any], folder: Path, where: str) -> Clip:
    path = _text(values.get("path"), where, "path")
    if path is None:
        raise DataError(f"{where}: path is empty")
    path = _located(path, folder)
    start = _seconds(values.get("start_s"), where, "start_s") or 0.0
    end = _seconds(values.get("end_s"), where, "end_s")
    if end is not None and end <= start:
        raise DataError(f"{where}: end_s {end:g} is not after start_s {start:g}")
    return Clip(
        _text(values.get("id"), where, "id") or _default_id(path, start, end),
        path,
        start,
        end,
        _text(values.get("text"), where, "text"),
        _extra(values, folder, where),
    )


def _default_id(path: str, start: float, end: float | None) -> str:
    return path if start == 0 and end is None else f"{path}#{start:g}-{'' if end is None else f'{end:g}'}"


def _extra(values: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    nested = values.get("extra")
    if nested is not None and not isinstance(nested, Mapping):
        raise DataError(f"{where}: extra is {_shown(nested)}; expected an object, or columns named extra.NAME")
    found = dict(nested or {})
    found |= {name.removeprefix("extra."): value for name, value in values.items() if name.startswith("extra.")}
    for name, value in found.items():
        if _is_nothing(value):
            found[name] = None
        elif isinstance(value, str) and (name.endswith("_path") or value.startswith(("./", "../"))):
            found[name] = _located(value, folder)
        elif not _is_json(value):
            found[name] = str(value)
    return found


def _text(value: Any, where: str, name: str) -> str | None:
    if _is_nothing(value):
        return None
    if name == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {_shown(value)}; expected text")
    return value


def _seconds(value: Any, where: str, name: str) -> float | None:
    if _is_nothing(value):
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise DataError(f"{where}: {name} is {_shown(value)}; expected seconds, 0 or more")
    return number


def _is_nothing(value: Any) -> bool:
    """Return whether a cell is empty: null, blank, or the NaN that data frames write for null."""
    if isinstance(value, str):
        return not value.strip() or value.strip().lower() == "nan"
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _located(path: str, folder: Path) -> str:
    """Return an absolute path; an address with a scheme, such as s3://, stays as it is."""
    return path if "://" in path else os.path.abspath(folder / Path(path).expanduser())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
