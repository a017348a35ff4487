"""ScoreStore: the folder of a filter run, its clips and their scores::

OUT/run.json                          filter, options, engine, how the run went
OUT/clips.parquet                     the clips of the latest run, in order
OUT/scores/<filter>-v<n>-<hash>/      rows, one folder for each filter and configuration ever used here
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from planish.atomic import replacing
from planish.errors import ConfigError, DataError
from planish.filtering.identity import FilterIdentity
from planish.filtering.row_schema import to_rows
from planish.filtering.run_record import NAME as RUN
from planish.filtering.run_record import RunRecord
from planish.filtering.shards import ShardFolder, read_parquet
from planish.filtering.source import fingerprint, forget_sources, source_state
from planish.interfaces.data_filter import Clip, DataFilter, Row

CLIPS = "clips.parquet"
SCORES = "scores"

_CLIP_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64()),
        pa.field("text", pa.string()),
        pa.field("extra", pa.string(), nullable=False, metadata={b"encoding": b"json"}),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("source_size", pa.int64()),
        pa.field("source_mtime_ns", pa.int64()),
    ]
)


class ScoreStore:
    """What ``planish filter`` keeps in its folder. Reading it needs no video."""

    def __init__(self, folder: Path, run: RunRecord) -> None:
        """Hold a folder and its record; use :meth:`open` for a folder that exists."""
        self.folder = folder
        self.run = run

    @classmethod
    def open(cls, folder: str | Path) -> ScoreStore:
        """Open the folder of a run.

        Raises:
            DataError: It is no output of ``planish filter``.
        """
        return cls(Path(folder), RunRecord.read(Path(folder)))

    @property
    def identity(self) -> FilterIdentity:
        """Filter and configuration of the latest run."""
        return self.run.identity

    @property
    def shards(self) -> ShardFolder:
        """The rows of this filter and configuration."""
        return ShardFolder(self.folder / SCORES / self.identity.key)

    def clips(self) -> list[Clip]:
        """Return the clips of the latest run, in order.

        Raises:
            DataError: The list is missing or damaged.
        """
        return [
            Clip(c["id"], c["path"], c["start_s"], c["end_s"], c["text"], json.loads(c["extra"]))
            for batch in self._clips(["id", "path", "start_s", "end_s", "text", "extra"]).to_batches(4096)
            for c in batch.to_pylist()
        ]

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of the latest run's clips, one a clip, in the clips' order.

        A clip that has not been scored yet, or has changed since, has none: see :meth:`missing`.

        Args:
            columns: Names of columns, the filter's own and those of :data:`planish.filtering.row_schema.BOOKKEEPING`;
                None for all.

        Raises:
            DataError: A file is missing or damaged, or a column is unknown.
        """
        needed = None if columns is None else list(dict.fromkeys([*columns, "sequence", "fingerprint"]))
        rows = self.shards.read(needed)
        found = rows.take(pc.drop_null(self._places(rows)))
        if columns is None:
            return found
        unknown = [name for name in columns if name not in found.column_names]
        if unknown and found.column_names:
            raise DataError(f"{self.folder} has no column {unknown[0]!r}; columns: {', '.join(found.column_names)}")
        return found.select([name for name in columns if name in found.column_names])

    def rows(self, data_filter: DataFilter) -> Iterator[Row]:
        """Yield the rows of the latest run's clips, one a clip, in the clips' order.

        Raises:
            DataError: A file is missing or damaged, or the filter's columns have changed.
        """
        found = self.table()
        if found.num_rows:
            yield from to_rows(found, data_filter.Columns)

    def missing(self, *, retry_errors: bool = False) -> list[int]:
        """Return the places of the clips that have no row, or a row of an earlier state of clip or file.

        Args:
            retry_errors: Count clips whose row has an error too.

        Raises:
            DataError: A file is missing or damaged.
        """
        rows = self.shards.read(["fingerprint", "sequence", "error"])
        if retry_errors and rows.num_rows:
            rows = rows.filter(pc.is_null(rows["error"]))
        places = self._places(rows)
        return [index for index, place in enumerate(places.to_pylist()) if place is None]

    def states(self) -> pa.Table:
        """Return ``fingerprint``, ``source_size`` and ``source_mtime_ns`` of the latest run's clips, in order.

        Raises:
            DataError: The list is missing or damaged.
        """
        return self._clips(["fingerprint", "source_size", "source_mtime_ns"]).combine_chunks()

    def put_clips(self, clips: Sequence[Clip]) -> None:
        """Write the list of clips in place of the former, each with the state in which its file is now.

        Raises:
            WorkError: The folder cannot be written, or the disk is full.
        """
        forget_sources()
        with (
            replacing(self.folder / CLIPS) as beside,
            pq.ParquetWriter(beside, _CLIP_SCHEMA, compression="zstd") as writer,
        ):
            for start in range(0, len(clips), 16_384):
                writer.write_table(_clip_table(clips[start : start + 16_384]))

    def _clips(self, columns: Sequence[str]) -> pa.Table:
        path = self.folder / CLIPS
        try:
            return read_parquet(path, columns)
        except FileNotFoundError:
            raise DataError(
                f"{self.folder} has no {CLIPS}: its run was interrupted at the very start; run 'planish filter' again"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is damaged ({' '.join(str(error).split())}); run 'planish filter' again with the same --out"
            ) from error

    def _places(self, rows: pa.Table) -> pa.Array:
        """Return for each clip the place of its row, or null."""
        wanted = self._clips(["fingerprint"])["fingerprint"]
        if rows.num_rows == 0:
            return pa.nulls(len(wanted), pa.int32())
        return pc.index_in(wanted, value_set=rows["fingerprint"].combine_chunks()).combine_chunks()


def claim_folder(folder: Path) -> RunRecord | None:
    """Return the record of the run that a folder holds; None if the folder is free for one.

    Raises:
        ConfigError: It is a file, or holds something else.
        DataError: Its record cannot be read.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise ConfigError(f"--out: {folder} is a file; name a folder")
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(f".{RUN}"))
    except OSError as error:
        raise ConfigError(f"--out: {folder} cannot be looked into: {error.strerror or error}") from error
    if RUN in names:
        return RunRecord.read(folder)
    if names:
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise ConfigError(
            f"--out: {folder} holds files that 'planish filter' did not write ({listed}); name another folder"
        )
    return None


def _clip_table(clips: Sequence[Clip]) -> pa.Table:
    states = [source_state(clip.path) for clip in clips]
    values = {
        "id": [clip.id for clip in clips],
        "path": [clip.path for clip in clips],
        "start_s": [clip.start_s for clip in clips],
        "end_s": [clip.end_s for clip in clips],
        "text": [clip.text for clip in clips],
        "extra": [json.dumps(dict(clip.extra), sort_keys=True, ensure_ascii=False, default=str) for clip in clips],
        "fingerprint": [fingerprint(clip, state) for clip, state in zip(clips, states, strict=True)],
        "source_size": [state.size for state in states],
        "source_mtime_ns": [state.mtime_ns for state in states],
    }
    return pa.table(values, schema=_CLIP_SCHEMA)
