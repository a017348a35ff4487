"""ShardWriter: rows as they come, into shards that appear often enough that a killed run loses little."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from planish.errors import DataError
from planish.filtering.identity import FilterIdentity
from planish.filtering.interrupts import deferred_interrupts
from planish.filtering.row_schema import to_table
from planish.filtering.shards import ShardFolder
from planish.interfaces.data_filter import Row

ROWS = 64
SECONDS = 30.0
_COMPACT_AFTER = 256


class ShardWriter:
    """Appends rows to a folder of shards."""

    def __init__(self, shards: ShardFolder, schema: pa.Schema, identity: FilterIdentity) -> None:
        """Look at what is there.

        Args:
            shards: The folder, cleaned.
            schema: Of the rows, from :func:`planish.filtering.row_schema.row_schema`.
            identity: What the rows belong to.

        Raises:
            DataError: The rows that are there have other columns.
        """
        self._shards, self._schema = shards, schema
        self._constant = {
            "filter": identity.filter,
            "metric_version": identity.metric_version,
            "params_hash": identity.params_hash,
            "distribution_version": identity.version,
        }
        highest = pc.max(shards.read(["fingerprint", "sequence"])["sequence"]).as_py()
        self._sequence = 0 if highest is None else highest + 1
        self._pending: list[tuple[Row, Mapping[str, Any]]] = []
        self._first = 0.0
        self._written = 0

    def add(self, rows: Sequence[Row], sources: Sequence[Mapping[str, Any]]) -> None:
        """Take rows; write a shard when :data:`ROWS` have come, or :data:`SECONDS` have passed since the first.

        Args:
            rows: Rows of the filter.
            sources: For each, ``fingerprint``, ``source_size``, ``source_mtime_ns`` and ``source_sha256``.

        Raises:
            WorkError: The folder cannot be written, or the disk is full; the rows that are not written are kept.
        """
        if not self._pending:
            self._first = time.monotonic()
        now = datetime.now(UTC)
        for row, source in zip(rows, sources, strict=True):
            self._pending.append((row, {"sequence": self._sequence, "scored_at": now, **source, **self._constant}))
            self._sequence += 1
        if len(self._pending) >= ROWS or time.monotonic() - self._first >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has come.

        Raises:
            WorkError: The folder cannot be written, or the disk is full; the rows are kept.
        """
        if not self._pending:
            return
        with deferred_interrupts():  # or what is written would still be pending, and be written again
            self._shards.append(self._table())
            self._pending = []
        self._written += 1
        if self._written % _COMPACT_AFTER == 0:
            self._shards.compact()

    def _table(self) -> pa.Table:
        rows, beside = [row for row, _ in self._pending], [values for _, values in self._pending]
        try:
            return to_table(rows, beside, self._schema)
        except DataError:
            storable = [self._storable(row, values) for row, values in self._pending]
            return to_table(storable, beside, self._schema)

    def _storable(self, row: Row, beside: Mapping[str, Any]) -> Row:
        """Return the row, or an error row in place of one with a value that does not fit its column."""
        try:
            to_table([row], [beside], self._schema)
        except DataError as error:
            said = row.error or " ".join(str(error).split())
            return type(row)(clip_id=row.clip_id, error=said.encode("utf-8", "backslashreplace").decode())
        return row
