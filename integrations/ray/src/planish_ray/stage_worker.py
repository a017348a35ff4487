"""StageWorker: what Ray Data keeps in its actor pools. One runs the stages of one segment."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from planish.errors import WorkError
from planish.interfaces.data_filter import Clip, ClipWork

from planish_ray.isolated_stages import IsolatedStages, Lost
from planish_ray.stage_process import Start

PACKS = pa.schema(
    [
        ("pack", pa.int64()),
        ("data", pa.large_binary()),
        ("context", pa.large_binary()),
        ("warnings", pa.large_binary()),
        ("failure", pa.string()),
    ]
)
"""What travels between stages: packs by number; their clips, pickled; what is known of them besides, which no worker
reads; what was logged over them, pickled; and why a worker cannot work at all."""
PATIENCE = 2
"""How many Ray workers may die over a pack, and then over a single clip of it, before the clip is given up."""


def packs_table(
    numbers: Sequence[int],
    datas: Sequence[bytes],
    contexts: Sequence[bytes | None] | None = None,
    warnings: Sequence[bytes | None] | None = None,
    failure: str | None = None,
) -> pa.Table:
    """Return packs as a table."""
    columns = [
        pa.array(numbers, pa.int64()),
        pa.array(datas, pa.large_binary()),
        pa.array(contexts or [None] * len(numbers), pa.large_binary()),
        pa.array(warnings or [None] * len(numbers), pa.large_binary()),
        pa.array([failure] * len(numbers), pa.string()),
    ]
    return pa.table(columns, schema=PACKS)


def pickled_works(clips: Sequence[Clip]) -> bytes:
    """Return the data of a pack whose clips have passed no stage yet."""
    return pickle.dumps([pickle.dumps(ClipWork(clip), protocol=5) for clip in clips], protocol=5)


class StageWorker:
    """Takes tables of packs, runs the segment's stages over their clips, and returns the packs."""

    def __init__(
        self,
        segment: str,
        start: Start,
        path: Sequence[str],
        *,
        timeout_s: float | None,
        batch_size: int,
        feed: Any = None,
    ) -> None:
        """Create the worker; its process starts with the first pack.

        Args:
            segment: Name of the segment.
            start: What to run.
            path: ``sys.path`` of the program that started the run.
            timeout_s: Seconds that a clip may take; None for no limit.
            batch_size: Clips handed to the stages at a time.
            feed: Handle of the :class:`~planish_ray.feed.Feed` actor, which counts the workers that died over a pack;
                None if nobody counts.
        """
        self._segment, self._batch_size, self._feed = segment, batch_size, feed
        self._stages = IsolatedStages(start, path, timeout_s=timeout_s)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the packs with what became of their clips."""
        numbers: list[int] = table["pack"].to_pylist()
        contexts: list[bytes | None] = table["context"].to_pylist()
        warnings: list[bytes | None] = table["warnings"].to_pylist()
        nothing = [b""] * len(numbers)
        failures = [failure for failure in table["failure"].to_pylist() if failure]
        if failures:
            return packs_table(numbers, nothing, contexts, warnings, failures[0])
        packs: list[list[bytes | Lost]] = [pickle.loads(data) if data else [] for data in table["data"].to_pylist()]
        keys = [str(number) for number in numbers]
        deaths = self._begin(keys)
        healthy = [place for place, died in enumerate(deaths) if died < PATIENCE]
        try:
            results = dict(zip(healthy, self._run([packs[place] for place in healthy]), strict=True))
            for place, number in enumerate(numbers):
                if place not in results:
                    results[place] = self._run_one_by_one(number, packs[place])
        except WorkError as error:
            return packs_table(numbers, nothing, contexts, warnings, str(error))
        self._finish(keys)
        warned, self._stages.warnings = self._stages.warnings, []
        if warned:
            earlier = pickle.loads(warnings[0]) if warnings[0] else []
            warnings[0] = pickle.dumps([*earlier, *warned])
        datas = [pickle.dumps(results[place], protocol=5) for place in range(len(numbers))]
        return packs_table(numbers, datas, contexts, warnings)

    def _run(self, packs: Sequence[list[bytes | Lost]]) -> list[list[bytes | Lost]]:
        """Run whole packs, several at a time where the stages want larger batches."""
        flat = [work for pack in packs for work in pack]
        done: list[bytes | Lost] = []
        for start in range(0, len(flat), self._batch_size):
            done += self._stages.run(flat[start : start + self._batch_size])
        rest = iter(done)
        return [[next(rest) for _ in pack] for pack in packs]

    def _run_one_by_one(self, number: int, pack: list[bytes | Lost]) -> list[bytes | Lost]:
        """Run the clips of a pack over which Ray workers died, each on the record, so that the culprit is found."""
        done: list[bytes | Lost] = []
        for place, work in enumerate(pack):
            key = f"{number}.{place}"
            (died,) = self._begin([key])
            if died >= PATIENCE:
                done.append(Lost(f"{died} Ray workers died over this clip; out of memory?"))
            else:
                done += self._stages.run([work])
            self._finish([key])
        return done

    def _begin(self, keys: list[str]) -> list[int]:
        """Return how many workers have died over each of these, and go on the record as the next."""
        if self._feed is None:
            return [0] * len(keys)
        import ray

        found: list[int] = ray.get(self._feed.begin.remote([f"{self._segment}/{key}" for key in keys]))
        return found

    def _finish(self, keys: list[str]) -> None:
        if self._feed is not None:
            import ray

            ray.get(self._feed.finish.remote([f"{self._segment}/{key}" for key in keys]))
