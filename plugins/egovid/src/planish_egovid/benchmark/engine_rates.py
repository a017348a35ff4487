"""Clips a second of an engine once its workers are up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planish.errors import WorkError
from planish.interfaces import Clip, DataFilter, FilterEngine, FilterJob, Row


@dataclass(frozen=True)
class EngineRun:
    """What one run of an engine gave.

    Attributes:
        rows: All rows, in the order that they came in.
        rate: Clips a second, from the row that was the last to be left out to the last row of all.
        start_s: Seconds to the first row: starting workers, importing libraries, and the first clips.
        end_s: Seconds from the last row until the engine was done: ending workers.
    """

    rows: list[Row]
    rate: float
    start_s: float
    end_s: float


def steady_run(engine: FilterEngine, data_filter: DataFilter, clips: Sequence[Clip], left_out: int) -> EngineRun:
    """Run an engine over clips, handed to it one by one, and time it without its start and its end.

    Both take seconds once a run, and say nothing of a long one.

    Args:
        engine: The engine.
        data_filter: The filter.
        clips: The clips.
        left_out: Clips at the beginning that do not count: enough that every worker has given its first, packs included
            where an engine hands clips to workers in packs.

    Raises:
        WorkError: There are too few clips to time, or one has an error.
    """
    rows: list[Row] = []
    came: list[float] = []
    began = time.perf_counter()
    for group in engine.run(FilterJob.of(data_filter), _singly(clips)):
        rows += group
        came += [time.perf_counter()] * len(group)
    ended = time.perf_counter()
    failed = next((row for row in rows if row.error is not None), None)
    if failed is not None:
        raise WorkError(f"clip {failed.clip_id} could not be scored: {failed.error}")
    # Rows of a pack come at once: those that came with the last one left out do not count either.
    counted = [moment for moment in came[left_out:] if moment > came[left_out - 1]]
    if not counted:
        raise WorkError(f"{len(rows)} clips are too few to time, with {left_out} left out and more coming with them")
    return EngineRun(rows, len(counted) / (came[-1] - came[left_out - 1]), came[0] - began, ended - came[-1])


def _singly(clips: Sequence[Clip]) -> Iterator[Sequence[Clip]]:
    for clip in clips:
        yield [clip]
