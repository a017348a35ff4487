"""Execution: one run of Ray Data over packs of clips."""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pyarrow as pa
from planish.errors import ConfigError, WorkError
from planish.filtering.scoring import error_row
from planish.interfaces.data_filter import DataFilter, Row
from planish.interfaces.engine import FilterJob

from planish_ray.feed import Feed
from planish_ray.isolated_stages import Lost
from planish_ray.packs import Pack, Packs
from planish_ray.segment import Segment
from planish_ray.stage_process import Start, Warned
from planish_ray.stage_worker import StageWorker, packs_table, pickled_works


class Execution:
    """Feeds packs to a Ray Data pipeline of the filter's segments and collects what comes out."""

    def __init__(
        self,
        data_filter: DataFilter,
        segments: Sequence[Segment],
        *,
        timeout_s: float | None,
        max_in_flight: int | None,
    ) -> None:
        """Create the execution; Ray must be running.

        Args:
            data_filter: The filter.
            segments: Its stages, with pools that fit.
            timeout_s: Seconds that a clip may take.
            max_in_flight: Clips in the pipeline at most; None for enough to keep all workers busy.
        """
        import ray

        self.errors: tuple[type[Exception], ...] = (ray.exceptions.RayError,)
        self._filter, self._segments, self._timeout_s = data_filter, list(segments), timeout_s
        self._said: set[Warned] = set()
        self._max_in_flight = max_in_flight

    def run(self, packs: Packs, outstanding: dict[int, Pack]) -> Iterator[list[Row]]:
        """Yield the rows of packs, in any order.

        Args:
            packs: Where they come from; read as workers become free.
            outstanding: Filled with the packs that are under way; those that are still there at the end are lost.

        Raises:
            ConfigError: ``max_in_flight`` does not fill the batches of all stages.
            WorkError: The filter cannot be built on a worker.
            RayError: Ray gave up.
        """
        import ray

        first = packs.take()
        if first is None:
            return
        limit = self._limit(packs.size)
        feed = ray.remote(num_cpus=0, max_concurrency=1000)(Feed).remote()
        number, flying, closed = 0, 0, False

        def put(pack: Pack) -> None:
            nonlocal number, flying
            ray.get(feed.put.remote(pickled_works(pack.clips)))
            outstanding[number] = pack
            number += 1
            flying += len(pack)

        def top_up() -> None:
            nonlocal closed
            while not closed and flying < limit:
                pack = packs.take()
                if pack is None:
                    closed = True
                    ray.get(feed.close.remote())
                else:
                    put(pack)

        results = None
        try:
            put(first)
            results = self._results(feed, packs)
            top_up()
            for table in results:
                for row in table.to_pylist():
                    if row["failure"]:
                        raise WorkError(row["failure"])
                    if row["warnings"]:
                        self._relay(pickle.loads(row["warnings"]))
                    done = outstanding.pop(row["pack"], None)
                    if done is None:
                        continue  # a pack whose results had arrived before a machine was lost, repeated empty
                    flying -= len(done)
                    feed.arrived.remote(row["pack"])
                    yield [
                        error_row(self._filter, clip, result.error)
                        if isinstance(result, Lost)
                        else pickle.loads(result)
                        for clip, result in zip(done.clips, pickle.loads(row["data"]), strict=True)
                    ]
                top_up()
        finally:
            if results is not None:
                results.close()
            with suppress(*self.errors):
                ray.kill(feed)

    def _limit(self, pack_size: int) -> int:
        """Return how many clips may be in flight."""
        batches = [max(s.batch_size, pack_size) for s in self._segments]
        # A pool waits until a batch is full. With fewer clips than this, all pools could wait at the same time.
        least = sum(batches)
        if self._max_in_flight is None:
            return least + 2 * sum(size * s.workers for size, s in zip(batches, self._segments, strict=True))
        if self._max_in_flight < least:
            raise ConfigError(
                f"max_in_flight is {self._max_in_flight}; the batches of the filter's stages need at least {least}"
            )
        return self._max_in_flight

    def _relay(self, warnings: Sequence[Warned]) -> None:
        """Log what workers have logged, each message once."""
        for logger, level, message in warnings:
            if (logger, level, message) not in self._said:
                self._said.add((logger, level, message))
                logging.getLogger(logger).log(level, "%s", message)

    def _results(self, feed: Any, packs: Packs) -> Generator[pa.Table, None, None]:
        import ray

        with _settings():
            dataset = ray.data.from_items([{"source": 0}], override_num_blocks=1).map_batches(
                _pull, batch_size=1, batch_format="pyarrow", num_cpus=0, fn_kwargs={"feed": feed}
            )
            dataset = add_segments(
                dataset,
                FilterJob.of(self._filter),
                self._segments,
                result="row",
                pack_size=packs.size,
                timeout_s=self._timeout_s,
                packs_are_few=packs.are_few,
                feed=feed,
            )
        # Without prefetching: a batch that waits for the next one to be fetched would never leave an idle pipeline.
        with _quiet():
            yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def add_segments(
    dataset: Any,
    job: FilterJob,
    segments: Sequence[Segment],
    *,
    result: Literal["row", "values"],
    pack_size: int,
    timeout_s: float | None,
    packs_are_few: bool = False,
    feed: Any = None,
) -> Any:
    """Return a dataset of packs with the segments' actor pools behind it."""
    from ray.data import ActorPoolStrategy

    for place, s in enumerate(segments):
        pool = {"size": s.workers} if s.is_fixed else {"min_size": 1, "max_size": s.workers}
        # One pack waits at each worker while another is scored: Ray Data looks ten times a second at what has come, so
        # that a worker without would idle that long after each pack, and it lets pools grow only where packs wait. A
        # handful of packs is left to whichever worker is free, lest the first one up takes them all.
        in_flight = 1 if packs_are_few and s.is_fixed and not s.gpus else 2
        dataset = dataset.map_batches(
            StageWorker,
            fn_constructor_kwargs={
                "segment": s.name,
                "start": Start(job, s.stages, result if place == len(segments) - 1 else "work", max(1, int(s.cpus))),
                "path": list(sys.path),
                "timeout_s": timeout_s,
                "batch_size": s.batch_size,
                "feed": feed,
            },
            compute=ActorPoolStrategy(max_tasks_in_flight_per_actor=in_flight, **pool),
            # A worker without a GPU takes a pack at a time, so that packs spread; a GPU gets full batches.
            batch_size=max(1, s.batch_size // pack_size) if s.gpus else 1,
            batch_format="pyarrow",
            num_cpus=s.cpus,
            num_gpus=s.gpus or None,
        )
    return dataset


def _pull(_: pa.Table, feed: Any) -> Iterator[pa.Table]:
    """Yield packs as the feed has them."""
    import ray

    number = 0
    while (pack := ray.get(feed.get.remote(number))) is not None:
        yield packs_table([number], [pack])
        number += 1


@contextmanager
def _settings() -> Iterator[None]:
    """Set what the datasets made in the block need of Ray Data, and put it back for the others of this process."""
    from ray.data import DataContext

    wanted = {
        "target_max_block_size": 1,  # a pack is a block: it goes on as soon as it is there
        "max_errored_blocks": -1,  # a block that fails costs its packs, which are tried again
        "memory_usage_poll_interval_s": None,  # nobody reads it, and each worker would measure itself every second
        "enable_progress_bars": False,
        "print_on_execution_start": False,
    }
    context = DataContext.get_current()
    before = {name: getattr(context, name) for name in wanted if hasattr(context, name)}
    try:
        for name in before:
            setattr(context, name, wanted[name])
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data off the terminal; its log files, below /tmp/ray/session_latest/logs, get everything."""
    # Its own terminal handler only: others may have hung theirs on the logger, and use them elsewhere too.
    handlers = [
        handler
        for handler in logging.getLogger("ray.data").handlers
        if isinstance(handler, logging.StreamHandler) and type(handler).__module__.startswith("ray.")
    ]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)
