"""Writing clips as a manifest that ``planish filter`` reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from planish.atomic import replacing
from planish.errors import ConfigError
from planish.interfaces import Clip

SUFFIXES = (".csv", ".jsonl", ".parquet")
_FIELDS = [
    pa.field("id", pa.string()),
    pa.field("path", pa.string()),
    pa.field("start_s", pa.float64()),
    pa.field("end_s", pa.float64()),
    pa.field("text", pa.string()),
]
_AT_A_TIME = 16_384


def check_manifest_name(path: Path) -> None:
    """Check that a path names a manifest that can be written.

    Raises:
        ConfigError: Its suffix is another one.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a manifest is a {', '.join(SUFFIXES)} file")


def write_manifest(path: Path, clips: Iterable[Clip], extra: Mapping[str, pa.DataType]) -> int:
    """Write clips and return how many there were. They are taken as they come: there may be more than fit into memory.

    Args:
        path: A ``.csv``, ``.jsonl`` or ``.parquet`` file.
        clips: The clips.
        extra: Name -> type of the entries of ``Clip.extra`` to write; those of other names are left out.

    Raises:
        ConfigError: The suffix is another one.
        WorkError: The file cannot be written.
    """
    check_manifest_name(path)
    with replacing(path) as beside:
        if path.suffix.lower() == ".parquet":
            return _write_parquet(beside, clips, extra)
        if path.suffix.lower() == ".jsonl":
            return _write_json_lines(beside, clips, extra)
        return _write_csv(beside, clips, extra)


def _cell(value: Any, kind: pa.DataType) -> Any:
    return value if value is None or isinstance(value, str) or not pa.types.is_string(kind) else str(value)


def _values(clip: Clip) -> dict[str, Any]:
    return {"id": clip.id, "path": clip.path, "start_s": clip.start_s, "end_s": clip.end_s, "text": clip.text}


def _write_parquet(path: Path, clips: Iterable[Clip], extra: Mapping[str, pa.DataType]) -> int:
    schema = pa.schema([*_FIELDS, *(pa.field(f"extra.{name}", kind) for name, kind in extra.items())])
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for some in _in_batches(clips):
            rows = [
                {
                    **_values(clip),
                    **{f"extra.{name}": _cell(clip.extra.get(name), kind) for name, kind in extra.items()},
                }
                for clip in some
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(some)
    return count


def _write_json_lines(path: Path, clips: Iterable[Clip], extra: Mapping[str, pa.DataType]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, clip in enumerate(clips, start=1):  # noqa: B007
            more = {name: clip.extra[name] for name in extra if clip.extra.get(name) is not None}
            values = {name: value for name, value in _values(clip).items() if value is not None}
            file.write(json.dumps({**values, **({"extra": more} if more else {})}, ensure_ascii=False) + "\n")
    return count


def _write_csv(path: Path, clips: Iterable[Clip], extra: Mapping[str, pa.DataType]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(field.name for field in _FIELDS), *(f"extra.{name}" for name in extra)])
        for count, clip in enumerate(clips, start=1):  # noqa: B007
            cells = [*_values(clip).values(), *(clip.extra.get(name) for name in extra)]
            writer.writerow(["" if cell is None else cell for cell in cells])
    return count


def _in_batches(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    source = iter(clips)
    while some := list(islice(source, _AT_A_TIME)):
        yield some


def types_of(clips: Iterable[Clip]) -> dict[str, pa.DataType]:
    """Return name -> type of the entries of ``Clip.extra``, for :func:`write_manifest`; text where clips disagree."""
    found: dict[str, pa.DataType] = {}
    for clip in clips:
        for name, value in clip.extra.items():
            if value is None:
                found.setdefault(name, pa.null())
                continue
            kind = pa.scalar(value).type
            before = found.get(name, pa.null())
            if before == kind:
                continue
            both = {before, kind}
            if pa.types.is_null(before) or both == {pa.int64(), pa.float64()}:
                found[name] = pa.float64() if both == {pa.int64(), pa.float64()} else kind
            else:
                found[name] = pa.string()
    return found
