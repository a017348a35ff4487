"""Scoring the clips of a run with an engine, into a folder from which the next run goes on."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from planish.atomic import make_folder
from planish.errors import DataError, PlanishError, WorkError
from planish.filtering.folder_lock import folder_lock
from planish.filtering.identity import FilterIdentity
from planish.filtering.interrupts import deferred_interrupts
from planish.filtering.manifest import Manifest
from planish.filtering.reason import reason_class
from planish.filtering.row_schema import row_schema
from planish.filtering.run_record import RunRecord
from planish.filtering.shard_writer import ShardWriter
from planish.filtering.shards import ShardFolder
from planish.filtering.source import source_sha256
from planish.filtering.store import ScoreStore, claim_folder
from planish.interfaces.data_filter import Clip, DataFilter, Row
from planish.interfaces.engine import FilterEngine, FilterJob

_log = logging.getLogger(__name__)
_MOST_TOGETHER = 8
"""Clips of one file that a worker gets at a time, at most: what a worker that dies has to do again."""


class Progress(Protocol):
    """Told how far a run is; see :mod:`planish.filtering.progress` for one that draws a bar."""

    def begin(self, clips: int, reused: int) -> None:
        """Scoring begins: so many clips, of which so many have their scores already."""

    def advance(self, clips: int, errors: int) -> None:
        """So many further clips have been scored, so many of them with an error."""


@dataclass(frozen=True)
class RunSummary:
    """How a run went.

    Attributes:
        folder: Where everything is.
        filter: Name of the filter.
        clips: Clips of the run.
        reused: Clips whose scores were there already.
        scored: Clips scored now.
        errors: Clips that could not be scored, now or earlier.
        errors_reused: Those of them that an earlier run could not score, and that were not tried again.
        reasons: The commonest classes of errors, each with its number of clips.
        unreadable: Folders that could not be looked into.
        damaged: Files of scores that were damaged and have been set aside.
        wall_s: Seconds that scoring took.
        clips_per_s: Clips scored a second; None if none was scored.
    """

    folder: str
    filter: str
    clips: int
    reused: int
    scored: int
    errors: int
    errors_reused: int
    reasons: dict[str, int]
    unreadable: list[str]
    damaged: list[str]
    wall_s: float
    clips_per_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def score_clips(
    data_filter: DataFilter,
    clips: Manifest | Sequence[Clip],
    out: str | Path,
    engine: FilterEngine,
    *,
    identity: FilterIdentity | None = None,
    sources: Sequence[str] = (),
    retry_errors: bool = False,
    hash_sources: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Score all clips that have no score of this filter and configuration yet.

    Rows are kept by filter, metric version and options. Clips that an earlier run scored under the same are not scored
    again, unless their range, text or further columns, or size or time of their file have changed. The list of clips is
    replaced by this run's: rows of clips that it lacks stay in the folder, and count again when a later run has them.

    Args:
        data_filter: The filter.
        clips: From :func:`planish.filtering.manifest.find_clips`, or clips with unique ids.
        out: Folder of the run: new, empty, or of an earlier run.
        engine: Runs the filter.
        identity: What the scores belong to; None to find out.
        sources: What the clips were found in, for the record.
        retry_errors: Score clips again that an earlier run could not score.
        hash_sources: Store the SHA-256 of each clip's file with its row.
        progress: Told how far the run is.

    Raises:
        ConfigError: ``out`` holds something else.
        DataError: There are no clips, two have one id, one is named by other bytes than UTF-8, or stored rows have
            other columns.
        WorkError: The folder cannot be written, the disk is full, another run writes to the folder, or the engine
            cannot go on. What was scored so far is kept.
        KeyboardInterrupt: As it came, with a message for the user; what was scored so far is kept.
    """
    manifest = clips if isinstance(clips, Manifest) else Manifest(list(clips))
    _check(manifest.clips)
    folder = Path(out)
    schema = row_schema(data_filter.Columns)
    claim_folder(folder)
    make_folder(folder)
    with folder_lock(folder):
        store = ScoreStore(folder, _record(data_filter, engine, manifest, identity, sources, claim_folder(folder)))
        run = _Run(store, schema, manifest.clips, hash_sources)
        store.run.write(folder)
        store.put_clips(manifest.clips)
        damaged = [str(path) for path in run.shards.clean()]
        missing = store.missing(retry_errors=retry_errors)
        if progress is not None:
            progress.begin(len(manifest.clips), len(manifest.clips) - len(missing))
        started = time.monotonic()
        try:
            run.score(data_filter, engine, missing, progress)
            wall_s = time.monotonic() - started
            errors, reasons = run.finish(wall_s)
        except BaseException as error:
            with suppress(PlanishError), deferred_interrupts():
                run.stop(time.monotonic() - started)
            if isinstance(error, KeyboardInterrupt):
                done = len(manifest.clips) - len(store.missing())
                raise KeyboardInterrupt(
                    f"interrupted with {done} of {len(manifest.clips)} clips scored; they are kept in {folder}, and "
                    "the same command goes on from there"
                ) from None
            raise
    reused, scored = len(manifest.clips) - len(missing), run.scored
    return RunSummary(
        folder=str(folder),
        filter=data_filter.name,
        clips=len(manifest.clips),
        reused=reused,
        scored=scored,
        errors=errors,
        errors_reused=errors - run.errors,
        reasons=reasons,
        unreadable=list(manifest.unreadable),
        damaged=damaged,
        wall_s=wall_s,
        clips_per_s=scored / wall_s if scored and wall_s > 0 else None,
    )


class _Run:
    """One run under way: which clips wait for their row."""

    def __init__(self, store: ScoreStore, schema: pa.Schema, clips: Sequence[Clip], hash_sources: bool) -> None:
        self.store, self._schema, self._clips, self._hash_sources = store, schema, clips, hash_sources
        self.shards = ShardFolder(store.shards.path, schema)
        self.waiting: dict[str, int] = {}
        self.scored = self.errors = 0
        self._writer: ShardWriter | None = None

    def score(
        self, data_filter: DataFilter, engine: FilterEngine, missing: list[int], progress: Progress | None
    ) -> None:
        """Have the engine score the clips at the given places, and write their rows."""
        states = self.store.states()
        self.waiting = {self._clips[place].id: place for place in missing}
        self._writer = ShardWriter(self.shards, self._schema, self.store.identity)
        if not missing:
            return
        groups = _groups([self._clips[place] for place in missing], _clips_together(data_filter, len(missing)))
        results = engine.run(FilterJob.of(data_filter), groups)
        try:
            for rows in results:
                places = [self._take(engine, row) for row in rows]
                self._writer.add(rows, [self._source(states, place) for place in places])
                self.scored += len(rows)
                failed = sum(row.error is not None for row in rows)
                self.errors += failed
                if progress is not None:
                    progress.advance(len(rows), failed)
        finally:
            close = getattr(results, "close", None)
            if close is not None:
                close()
        if self.waiting:
            raise WorkError(
                f"the engine {engine.name!r} gave no row for {len(self.waiting)} clips, such as "
                f"{next(iter(self.waiting))!r}; the same command tries them again"
            )

    def finish(self, wall_s: float) -> tuple[int, dict[str, int]]:
        """Write the rest, make sure that every clip has its row, and return how many have an error, and which."""
        assert self._writer is not None
        self._writer.flush()
        self.shards.compact()
        missing = self.store.missing()
        if missing:
            raise WorkError(
                f"{len(missing)} clips have no row, such as {self._clips[missing[0]].id!r}; "
                "the same command tries them again"
            )
        return self._write_record("finished", wall_s)

    def stop(self, wall_s: float) -> None:
        """Write what has come so far."""
        if self._writer is not None:
            self._writer.flush()
        self._write_record("interrupted", wall_s)

    def _write_record(self, state: str, wall_s: float) -> tuple[int, dict[str, int]]:
        found = self.store.table(["error"])
        errors = found["error"].drop_null().to_pylist() if found.num_rows else []
        before = self.store.run
        self.store.run = before.model_copy(
            update={
                "state": state,
                "clips": len(self._clips),
                "errors": len(errors),
                "scored": before.scored + self.scored,
                "wall_s": before.wall_s + (wall_s if self.scored else 0.0),
            }
        )
        self.store.run.write(self.store.folder)
        return len(errors), dict(Counter(reason_class(error) for error in errors).most_common(5))

    def _take(self, engine: FilterEngine, row: Row) -> int:
        place = self.waiting.pop(row.clip_id, None)
        if place is None:
            raise WorkError(f"the engine {engine.name!r} gave a row too many for clip {row.clip_id!r}")
        return place

    def _source(self, states: pa.Table, place: int) -> dict[str, Any]:
        found = {name: states[name][place].as_py() for name in states.column_names}
        return {**found, "source_sha256": source_sha256(self._clips[place].path) if self._hash_sources else None}


def _check(clips: Sequence[Clip]) -> None:
    if not clips:
        raise DataError("there are no clips to score")
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise DataError(f"the id {clip.id!r} occurs twice among the clips; ids must be unique")
        seen.add(clip.id)
        extra = json.dumps(dict(clip.extra), ensure_ascii=False, default=str) if clip.extra else ""
        try:
            f"{clip.id}{clip.path}{clip.text}{extra}".encode()
        except UnicodeEncodeError:  # the name of a file may be any bytes
            raise DataError(
                f"clip {clip.id!r} of {clip.path!r} cannot be stored: its name, text or columns are not UTF-8; rename "
                "the file, or correct the manifest"
            ) from None


def _record(
    data_filter: DataFilter,
    engine: FilterEngine,
    manifest: Manifest,
    identity: FilterIdentity | None,
    sources: Sequence[str],
    before: RunRecord | None,
) -> RunRecord:
    identity = identity or FilterIdentity.of(data_filter)
    same = before is not None and before.identity.key == identity.key
    return RunRecord(
        filter=identity.filter,
        distribution=identity.distribution,
        version=identity.version,
        metric_version=identity.metric_version,
        params=data_filter.config.model_dump(mode="json"),
        params_hash=identity.params_hash,
        engine=engine.name,
        engine_params=engine.config.model_dump(mode="json"),
        sources=list(sources),
        unreadable=list(manifest.unreadable),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        state="running",
        clips=len(manifest.clips),
        scored=before.scored if before is not None and same else 0,
        wall_s=before.wall_s if before is not None and same else 0.0,
    )


def _clips_together(data_filter: DataFilter, clips: int) -> tuple[int, bool]:
    """Return how many clips a worker gets at a time, and whether they may be of several files.

    Clips of one file are read in one go. A model on a GPU wants its batches full whatever the files are. A short run is
    cut finer, so that all workers have something to do.
    """
    wanted = [stage.batch_size for stage in data_filter.stages() if stage.gpus > 0]
    fair = max(1, clips // 64)
    return (min(max(wanted), fair), True) if wanted else (min(_MOST_TOGETHER, fair), False)


def _groups(clips: list[Clip], together: tuple[int, bool]) -> Iterator[list[Clip]]:
    """Yield groups of clips, those of one file one after the other by their start."""
    size, mixes_files = together
    group: list[Clip] = []
    for clip in sorted(clips, key=lambda clip: (clip.path, clip.start_s, clip.id)):
        if group and (len(group) >= size or (clip.path != group[0].path and not mixes_files)):
            yield group
            group = []
        group.append(clip)
    if group:
        yield group
