"""ShardFolder: the rows of one filter and configuration, in Parquet files that appear as a whole or not at all.

A shard is written beside and renamed. Many small ones are compacted into few: the new shard names in its metadata those
that it replaces, and from the moment that it has its name the others count no more, whether or not they are gone yet.
So a run that dies at any moment leaves each row exactly once. Numbers of shards only rise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from planish.atomic import make_folder, replacing
from planish.errors import DataError, WorkError

_log = logging.getLogger(__name__)
_REPLACES = b"planish.replaces"
LARGE = 65_536
"""Rows from which on a shard is left alone by compaction."""


@dataclass(frozen=True)
class Shard:
    """A shard that counts.

    Attributes:
        path: Its file.
        rows: Number of its rows, those included that later ones replace.
    """

    path: Path
    rows: int


class ShardFolder:
    """Rows in Parquet shards, of which the latest of each clip holds."""

    def __init__(self, path: Path, schema: pa.Schema | None = None) -> None:
        """Look at a folder, which need not exist yet.

        Args:
            path: The folder.
            schema: Schema of its rows; None to take it from the first shard.
        """
        self.path = path
        self.schema = schema
        self._next: int | None = None

    def shards(self) -> list[Shard]:
        """Return the shards that count, in the order of writing.

        Raises:
            DataError: A shard is damaged.
        """
        found = []
        replaced: set[str] = set()
        for path in self._files():
            metadata = _metadata(path)
            if metadata is None:
                continue  # replaced and deleted by a run that is going on
            replaced |= set(json.loads((metadata.metadata or {}).get(_REPLACES, b"[]")))
            found.append(Shard(path, metadata.num_rows))
        return [shard for shard in found if shard.path.name not in replaced]

    def clean(self) -> list[Path]:
        """Prepare for writing: remove what a run that died has left, and set damaged shards aside.

        Returns:
            The damaged shards, under their new names; their clips have to be scored again.

        Raises:
            WorkError: The folder cannot be written.
        """
        damaged = []
        try:
            for left in self.path.glob(".part-*"):
                left.unlink()
            for path in self._files():
                try:
                    read_parquet(path)
                except (pa.ArrowException, OSError) as error:
                    aside = path.with_name(f"{path.name}.damaged")
                    path.replace(aside)
                    damaged.append(aside)
                    _log.warning("%s is damaged (%s); its clips are scored again", path, " ".join(str(error).split()))
            counted = {shard.path for shard in self.shards()}
            for path in self._files():
                if path not in counted:
                    path.unlink()
        except OSError as error:
            raise WorkError(f"cannot tidy {self.path}: {error.strerror or error}; make the folder writable") from error
        return damaged

    def append(self, table: pa.Table, *, replaces: Sequence[Shard] = ()) -> Shard:
        """Write a further shard.

        Args:
            table: Its rows.
            replaces: Shards that count no more from now on.

        Raises:
            WorkError: The folder cannot be written, or the disk is full.
        """
        make_folder(self.path)
        number = self._take_number()
        path = self.path / f"part-{number:06d}.parquet"
        metadata = {**(table.schema.metadata or {}), _REPLACES: json.dumps([s.path.name for s in replaces]).encode()}
        with replacing(path) as beside:
            pq.write_table(table.replace_schema_metadata(metadata), beside, compression="zstd")
        return Shard(path, table.num_rows)

    def compact(self) -> None:
        """Join small shards into few, and drop rows that later ones replace.

        Raises:
            WorkError: The folder cannot be written, or the disk is full.
        """
        group: list[Shard] = []
        for shard in [*self.shards(), None]:
            if shard is not None and shard.rows < LARGE:
                group.append(shard)
            if group and (shard is None or sum(one.rows for one in group) >= LARGE):
                if len(group) > 1:
                    self._join(group)
                group = []

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the latest row of each fingerprint, in the order of writing.

        Args:
            columns: Those to read; None for all. ``sequence`` and ``fingerprint`` must be among them.

        Raises:
            DataError: A shard is damaged, or shards have different columns.
        """
        for _ in range(3):
            try:
                return _latest(self._read(self.shards(), columns))
            except FileNotFoundError:
                continue  # a run that is going on has compacted them between the listing and the reading
        raise DataError(f"{self.path} changes faster than it can be read; wait for the run that writes it")

    def _read(self, shards: Iterable[Shard], columns: Sequence[str] | None = None) -> pa.Table:
        tables = []
        for shard in shards:
            try:
                tables.append(read_parquet(shard.path, columns).replace_schema_metadata(None))
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError) as error:
                raise _damaged(shard.path, error) from error
        wanted = self.schema or (pq.read_schema(next(iter(self._files()))) if tables else pa.schema([]))
        if columns is not None:
            wanted = pa.schema([wanted.field(name) for name in columns if name in wanted.names])
        for table in tables:
            if table.schema.names != wanted.names or table.schema.types != wanted.types:
                differing = sorted(set(table.schema.names) ^ set(wanted.names)) or ["the types of columns"]
                raise DataError(
                    f"{self.path} holds rows of other columns ({', '.join(differing[:3])}): the filter has changed "
                    "without raising its metric_version; raise it, or score into another folder"
                )
        return pa.concat_tables([table.cast(wanted) for table in tables]) if tables else wanted.empty_table()

    def _join(self, group: Sequence[Shard]) -> None:
        joined = _latest(self._read(group))
        self.append(joined, replaces=group)
        for shard in group:
            try:
                shard.path.unlink()
            except OSError as error:  # it counts no more: the next run removes it
                _log.warning("cannot remove %s, which has been replaced: %s", shard.path, error.strerror or error)

    def _take_number(self) -> int:
        if self._next is None:
            self._next = 1 + max((_number(path) for path in self._files(also_damaged=True)), default=-1)
        self._next += 1
        return self._next - 1

    def _files(self, *, also_damaged: bool = False) -> list[Path]:
        pattern = "part-*.parquet*" if also_damaged else "part-*.parquet"
        return sorted(self.path.glob(pattern), key=_number)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the columns of one Parquet file; those that it lacks are left out, and its path is not taken for data."""
    with pq.ParquetFile(path) as file:
        known = file.schema_arrow.names
        return file.read(None if columns is None else [name for name in columns if name in known])


def _latest(table: pa.Table) -> pa.Table:
    """Return the last row of each fingerprint, by sequence."""
    if table.num_rows == 0:
        return table
    table = table.sort_by("sequence")
    places = pa.table({"fingerprint": table["fingerprint"], "place": pa.array(range(table.num_rows), pa.int64())})
    last = places.group_by("fingerprint").aggregate([("place", "max")])["place_max"]
    return table.take(last.combine_chunks().sort())


def _metadata(path: Path) -> pq.FileMetaData | None:
    """Return the metadata of a shard, or None if it has just been deleted.

    Raises:
        DataError: It is damaged.
    """
    try:
        return pq.read_metadata(path)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is damaged ({' '.join(str(error).split())}); run 'planish filter' again with the same --out to score "
        "its clips again"
    )


def _number(path: Path) -> int:
    digits = path.name.split(".")[0].removeprefix("part-")
    return int(digits) if digits.isdigit() else 0
