"""Clips a second of an engine once its workers are up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from planish.errors import WorkError
from planish.interfaces import Clip, DataFilter, FilterEngine, FilterJob, Row


def steady_rate(
    engine: FilterEngine, data_filter: DataFilter, clips: Sequence[Clip], workers: int
) -> tuple[float, list[Row]]:
    """Return clips a second after each worker has given its first clip, and all rows.

    Starting processes and importing libraries takes seconds once a run, and says nothing of a long one.

    Raises:
        WorkError: There are too few clips to time, or one has an error.
    """
    rows: list[Row] = []
    started: float | None = None
    skipped = 0
    for group in engine.run(FilterJob.of(data_filter), _singly(clips)):
        rows += group
        if started is None and len(rows) >= workers:
            started, skipped = time.perf_counter(), len(rows)
    ended = time.perf_counter()
    failed = next((row for row in rows if row.error is not None), None)
    if failed is not None:
        raise WorkError(f"clip {failed.clip_id} could not be scored: {failed.error}")
    if started is None or len(rows) - skipped < workers:
        raise WorkError(f"{len(rows)} clips are too few to time {workers} workers on")
    return (len(rows) - skipped) / (ended - started), rows


def _singly(clips: Sequence[Clip]) -> Iterator[Sequence[Clip]]:
    for clip in clips:
        yield [clip]
