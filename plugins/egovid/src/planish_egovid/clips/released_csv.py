"""The tables of the released data set (``egovid-text.csv``, ``egovid-kinematic.csv``, ``egovid-val.csv``).

Lists stand in them as text, ``"[24.5, 23.1]"``. What is read and written again unchanged gives the same bytes: floats
are written as the shortest text that reads back as the same number, which is how pandas wrote the released files, and a
cell that was spelt otherwise keeps its spelling as long as its value stays.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from planish.atomic import replacing
from planish.errors import DataError, did_you_mean

from planish_egovid.clips.ids import ClipId, parse_clip_id

_log = logging.getLogger(__name__)
Kind = Literal["text", "int", "float", "floats"]

IMU_COLUMNS = ("gyro_x", "gyro_y", "gyro_z", "accl_x", "accl_y", "accl_z")
"""Columns that only the kinematic and the validation table have: values at frame rate."""
SCORES: Mapping[str, Kind] = {
    "flow_mean": "float",
    "flow_0_4": "float",
    "flow_4_8": "float",
    "flow_8_12": "float",
    "flow_12_16": "float",
    "flow_16_": "float",
    "ti_sim": "floats",
    "ii_sim": "floats",
    "dover_score": "float",
    "egovideo_score": "float",
}
"""Columns that hold scores."""
KINDS: Mapping[str, Kind] = {
    "video_id": "text",
    "frame_num": "int",
    "fps": "float",
    "noun_cls": "text",
    "verb_cls": "text",
    "llava_cap": "text",
    "name": "text",
    **SCORES,
    **dict.fromkeys(IMU_COLUMNS, "floats"),
}
"""All released columns, in order."""
COLUMNS = tuple(name for name in KINDS if name not in IMU_COLUMNS)
"""Columns of the text table, in order."""


@dataclass(frozen=True)
class ReleasedRow:
    """A row of a released table.

    Attributes:
        number: Of the row, from 1.
        values: Column -> value: text, int, float or list of floats; None for an empty cell.
        written: Column -> how its value was spelt, for cells that this package would spell otherwise.
        offset: Byte at which the row starts in its file.
    """

    number: int
    values: Mapping[str, Any]
    written: Mapping[str, str] = field(default_factory=dict)
    offset: int | None = None

    @property
    def clip_id(self) -> ClipId:
        """The clip's source and frames.

        Raises:
            ClipIdError: The id cannot be read.
        """
        return parse_clip_id(self.values.get("video_id"), self.number)

    def cell(self, column: str) -> str:
        """Return the text of a cell."""
        value = self.values.get(column)
        spelt = self.written.get(column)
        if spelt is not None and parsed(spelt, KINDS.get(column, "text")) == value:
            return spelt
        return spelling(value)


class ReleasedCsv:
    """A released table, read row by row.

    Attributes:
        path: The file.
        columns: Its columns, in order.
        line_end: What ends its lines.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a table; see :func:`read_egovid_csv`."""
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                line = file.readline()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
        self.line_end = "\r\n" if line.endswith(b"\r\n") else "\n"
        self.columns = tuple(next(csv.reader([_decoded(line, self.path)]), []))
        if "video_id" not in self.columns:
            hint = did_you_mean("video_id", self.columns) or f"; found {', '.join(self.columns[:6]) or 'nothing'}"
            raise DataError(f"{path} has no column 'video_id'{hint}; the released tables have {', '.join(COLUMNS)}")
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if twice:
            raise DataError(f"{path}: column {twice[0]!r} occurs twice")
        others = [name for name in self.columns if name not in KINDS]
        if others:
            _log.info("%s: columns %s are none of the released ones and stay text", path, ", ".join(others))

    def __iter__(self) -> Iterator[ReleasedRow]:
        """Yield the rows.

        Raises:
            DataError: A row has another number of cells, or a cell is not of its column's kind.
        """
        for number, offset, cells in self.cells():
            yield self._row(number, offset, cells)

    def cells(self) -> Iterator[tuple[int, int, list[str]]]:
        """Yield number, offset and cells of each row as text, whatever is in them.

        Raises:
            DataError: The file is no CSV.
        """
        position = 0

        def lines() -> Iterator[str]:
            nonlocal position
            with self.path.open("rb") as file:
                for line in file:
                    position += len(line)
                    yield _decoded(line, self.path)

        reader = csv.reader(lines(), strict=True)
        next(reader)
        number = 0
        while True:
            offset = position
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(f"{self.path}, line {reader.line_num}: {error}") from None
            if cells:
                number += 1
                yield number, offset, cells

    def row_at(self, offset: int, number: int = 0) -> ReleasedRow:
        """Return the row that starts at a byte.

        Raises:
            DataError: There is none.
        """
        with self.path.open("rb") as file:
            file.seek(offset)
            cells = next(csv.reader(_decoded(line, self.path) for line in file), [])
        return self._row(number, offset, cells)

    def _row(self, number: int, offset: int, cells: Sequence[str]) -> ReleasedRow:
        if len(cells) != len(self.columns):
            raise DataError(f"{self.path}, row {number}: {len(cells)} cells for {len(self.columns)} columns")
        values: dict[str, Any] = {}
        written: dict[str, str] = {}
        for column, text in zip(self.columns, cells, strict=True):
            kind = KINDS.get(column, "text")
            try:
                values[column] = value = parsed(text, kind)
            except ValueError:
                wanted = {"int": "a whole number", "float": "a number", "floats": "a list of numbers"}[kind]
                raise DataError(
                    f"{self.path}, row {number}: {column} is {text[:60]!r}; expected {wanted}, or nothing"
                ) from None
            if spelling(value) != text:
                written[column] = text
        return ReleasedRow(number, values, written, offset)


def read_egovid_csv(path: str | Path) -> ReleasedCsv:
    """Open a released table, which is read row by row as one iterates over it.

    Columns that are missing are left out; columns of other names stay text.

    Raises:
        DataError: The file cannot be read, or has no column ``video_id``.
    """
    return ReleasedCsv(path)


def write_egovid_csv(
    path: str | Path, rows: Iterable[ReleasedRow], columns: Sequence[str] = COLUMNS, line_end: str = "\n"
) -> int:
    """Write a table in the released form and return the number of rows.

    Raises:
        WorkError: The file cannot be written.
    """
    count = 0
    with replacing(Path(path)) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator=line_end)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([row.cell(column) for column in columns])
            count += 1
    return count


def parsed(text: str, kind: Kind) -> Any:
    """Return the value of a cell; None for an empty one and for ``nan``.

    Raises:
        ValueError: It is not of its kind.
    """
    bare = text.strip()
    if not bare or bare.lower() == "nan":
        return None
    if kind == "text":
        return text
    if kind == "floats":
        if not (bare.startswith("[") and bare.endswith("]")):
            raise ValueError(text)
        return [float(item.strip().strip("'\"")) for item in bare[1:-1].replace(",", " ").split()]
    number = float(bare)
    if kind == "float":
        return number
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


def spelling(value: Any) -> str:
    """Return the text of a value, which reads back as the same value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple):
        return f"[{', '.join(repr(float(item)) for item in value)}]"
    return repr(value) if isinstance(value, float) else str(value)


def _decoded(line: bytes, path: Path) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); convert it") from None
