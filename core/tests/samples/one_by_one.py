"""Sample filter engine: one worker that scores clip after clip, started anew when a clip takes it down."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from planish import WorkError
from planish.config import Config as PluginConfig
from planish.interfaces import Clip, FilterEngine, FilterJob, Row
from pydantic import Field


class Worker:
    """A process that scores, started at its first clip."""

    def __init__(self, job: FilterJob) -> None:
        """Start nothing yet."""
        self.job = job
        self.context: Any = multiprocessing.get_context("fork")  # at once, and what it runs uses no threads
        self.process: Any = None
        self.pipe: Any = None
        self.columns: Any = None

    def score(self, clip: Clip, timeout_s: float) -> Row:
        """Return a clip's row; one with an error if the process dies or takes too long."""
        if self.process is None:
            self.start()
        try:
            self.pipe.send(clip)
            if self.pipe.poll(timeout_s):
                answer: Row | str = self.pipe.recv()
                return self.columns(clip_id=clip.id, error=answer) if isinstance(answer, str) else answer
            error = f"timed out after {timeout_s:g} s"
        except (EOFError, OSError):
            self.process.join()
            error = f"its worker died with exit code {self.process.exitcode}"
        self.stop()
        row: Row = self.columns(clip_id=clip.id, error=error)
        return row

    def start(self) -> None:
        """Start the process.

        Raises:
            WorkError: It cannot build the filter.
        """
        self.pipe, other = self.context.Pipe()
        self.process = self.context.Process(target=serve, args=(self.job, other), daemon=True)
        self.process.start()
        other.close()
        try:
            columns = self.pipe.recv()
        except EOFError:
            columns = "its process died"
        if isinstance(columns, str):
            self.stop()
            raise WorkError(f"filter {self.job.target!r} cannot be built in a worker: {columns}")
        self.columns = columns

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


def serve(job: FilterJob, pipe: Connection) -> None:
    """Build the filter and score what comes; answer with a row, or with what went wrong."""
    try:
        data_filter = job.build()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send(data_filter.Columns)
    while True:
        try:
            clip = pipe.recv()
        except EOFError:
            return
        try:
            (row,) = data_filter.score([clip])
            pipe.send(row)
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


class OneByOne(FilterEngine):
    """One worker, one clip at a time."""

    name = "sample-one-by-one"
    summary = "clip after clip, in one process"

    class Config(PluginConfig):
        """How to run."""

        clip_timeout_s: float = Field(600.0, gt=0, description="seconds that a clip may take")

    def run(self, job: FilterJob, clips: Iterable[Sequence[Clip]]) -> Iterator[Sequence[Row]]:
        """Yield the rows of one group of clips after the other."""
        worker = self.worker(job)
        try:
            for group in clips:
                if group:
                    yield [self.score(worker, clip) for clip in group]
        finally:
            worker.stop()

    def worker(self, job: FilterJob) -> Worker:
        """Return a worker that has not been started."""
        return Worker(job)

    def score(self, worker: Worker, clip: Clip) -> Row:
        """Return the row of one clip."""
        return worker.score(clip, self.config.clip_timeout_s)
