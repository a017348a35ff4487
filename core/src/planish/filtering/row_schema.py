"""The Arrow schema of a filter's rows, and rows to tables and back.

Numbers, text, truth values and lists of these are Arrow columns of their own and may be null. A column of another type
is stored as JSON text, and its field says so in its metadata.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import ValidationError

from planish.errors import DataError, PluginError
from planish.interfaces.data_filter import Row

SCHEMA_VERSION = 1
"""Raised when the layout of stored rows changes."""

BOOKKEEPING = pa.schema(
    [
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("source_size", pa.int64()),
        pa.field("source_mtime_ns", pa.int64()),
        pa.field("source_sha256", pa.string()),
        pa.field("scored_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("filter", pa.string(), nullable=False),
        pa.field("metric_version", pa.int64(), nullable=False),
        pa.field("params_hash", pa.string(), nullable=False),
        pa.field("distribution_version", pa.string(), nullable=False),
    ]
)
"""What stands beside a filter's own columns: ``sequence`` rises with every row written, and of two rows of one clip the
later holds; ``fingerprint`` stands for the clip and the state of its file, see :mod:`planish.filtering.source`."""

_JSON = {b"encoding": b"json"}
_SCALARS: dict[Any, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
}


def row_schema(columns: type[Row]) -> pa.Schema:
    """Return the schema of stored rows: the columns of the filter as declared, then :data:`BOOKKEEPING`.

    Raises:
        PluginError: A column has the name of a bookkeeping column.
    """
    taken = [name for name in columns.model_fields if name in BOOKKEEPING.names]
    if taken:
        raise PluginError(f"column {taken[0]!r} of {columns.__qualname__} is a name that planish needs; rename it")
    fields = []
    for name, field in columns.model_fields.items():
        kind = arrow_type(field.annotation)
        metadata = {b"description": (field.description or "").encode(), **({} if kind is not None else _JSON)}
        fields.append(pa.field(name, pa.string() if kind is None else kind, name != "clip_id", metadata))
    return pa.schema([*fields, *BOOKKEEPING], {b"planish.schema_version": str(SCHEMA_VERSION).encode()})


def arrow_type(annotation: Any) -> pa.DataType | None:
    """Return the Arrow type of a Python annotation, or None for one that is stored as JSON text."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return arrow_type(arguments[0])
    if origin in (Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        return arrow_type(rest[0]) if len(rest) == 1 else None
    if origin is Literal:
        kinds = {type(value) for value in arguments}
        return _SCALARS.get(kinds.pop()) if len(kinds) == 1 else None
    if origin in (list, tuple):
        items = {argument for argument in arguments if argument is not Ellipsis}
        item = arrow_type(items.pop()) if len(items) == 1 else None
        return None if item is None else pa.list_(item)
    return _SCALARS.get(annotation)


def to_table(rows: Sequence[Row], bookkeeping: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table.

    Args:
        rows: Rows of the filter whose schema it is.
        bookkeeping: Values of :data:`BOOKKEEPING`, one mapping a row.
        schema: From :func:`row_schema`.

    Raises:
        DataError: A value does not fit its column, such as an integer of more than 64 bits, or text that is not UTF-8.
    """
    encoded = {field.name for field in schema if _is_json(field)}
    values = []
    for row, beside in zip(rows, bookkeeping, strict=True):
        value = {**row.model_dump(exclude=encoded or None), **beside}
        if encoded:
            found = row.model_dump(mode="json", include=encoded)
            value |= {n: None if item is None else json.dumps(item, ensure_ascii=False) for n, item in found.items()}
        values.append(value)
    arrays = []
    for field in schema:
        try:
            arrays.append(pa.array([value[field.name] for value in values], field.type))
        except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError) as error:
            raise DataError(f"column {field.name!r} cannot be stored as {field.type}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=schema)


def to_rows(table: pa.Table, columns: type[Row]) -> Iterator[Row]:
    """Yield the rows of a table that :func:`to_table` has made; bookkeeping columns are left out.

    Raises:
        DataError: A column is missing, or a value is not what ``columns`` demands: the filter's columns have changed.
    """
    lacking = [name for name in columns.model_fields if name not in table.column_names]
    if lacking:
        raise DataError(
            f"stored rows have no column {lacking[0]!r}: the filter has changed since they were scored without raising "
            "its metric_version; score again into another folder"
        )
    chosen = table.select(list(columns.model_fields))
    encoded = [field.name for field in chosen.schema if _is_json(field)]
    for batch in chosen.to_batches(max_chunksize=1024):
        for value in batch.to_pylist():
            value |= {name: json.loads(value[name]) for name in encoded if value[name] is not None}
            try:
                yield columns.model_validate(value)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in first["loc"])
                raise DataError(
                    f"the stored row of clip {value['clip_id']!r} is none of {columns.__qualname__} "
                    f"({where}: {first['msg']}); score again into another folder"
                ) from None


def _is_json(field: pa.Field) -> bool:
    return bool(field.metadata) and field.metadata.get(b"encoding") == b"json"
