"""Sample filter engine: clip after clip in one process, which is started anew when a clip takes it down."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from planish import WorkError
from planish.config import Config as PluginConfig
from planish.interfaces import Clip, FilterEngine, FilterJob, Row
from pydantic import Field


class OneByOne(FilterEngine):
    """One worker, one clip at a time."""

    name = "sample-one-by-one"
    summary = "clip after clip, in one process"
    context = "fork"

    class Config(PluginConfig):
        """How to run."""

        clip_timeout_s: float = Field(60.0, gt=0, description="seconds that a clip may take")

    def run(self, job: FilterJob, clips: Iterable[Sequence[Clip]]) -> Iterator[Sequence[Row]]:
        worker = self.worker(job)
        try:
            for group in clips:
                if group:
                    yield [self.score(worker, clip) for clip in group]
        finally:
            worker.stop()

    def worker(self, job: FilterJob) -> Worker:
        """Return a worker that has not been started."""
        return Worker(job, self.context)

    def score(self, worker: Worker, clip: Clip) -> Row:
        """Return the row of one clip, whatever happens to the worker."""
        found, error = worker.ask(clip, self.config.clip_timeout_s)
        return found if found is not None else worker.columns(clip_id=clip.id, error=error)


class Worker:
    """A process that scores, started at its first clip."""

    def __init__(self, job: FilterJob, context: str) -> None:
        self.job, self.context = job, multiprocessing.get_context(context)
        self.process: Any = None
        self.pipe: Any = None
        self.columns: Any = None

    def ask(self, clip: Clip, timeout_s: float) -> tuple[Row | None, str]:
        """Return a clip's row, or why there is none."""
        if self.process is None:
            self.start()
        try:
            self.pipe.send(clip)
            if self.pipe.poll(timeout_s):
                return self.pipe.recv()
            error = f"timed out after {timeout_s:g} s"
        except (EOFError, OSError):
            self.process.join()
            error = f"its worker died with exit code {self.process.exitcode}"
        self.stop()
        return None, error

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
            self.columns, error = self.pipe.recv()
        except EOFError:
            self.columns, error = None, "its process died"
        if self.columns is None:
            self.stop()
            raise WorkError(f"filter {self.job.target!r} cannot be built in a worker: {error}")

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


def serve(job: FilterJob, pipe: Connection) -> None:
    """Build the filter and score what comes."""
    try:
        data_filter = job.build()
    except Exception as error:
        pipe.send((None, f"{type(error).__name__}: {error}"))
        return
    pipe.send((data_filter.Columns, ""))
    while True:
        try:
            clip = pipe.recv()
        except EOFError:
            return
        try:
            (row,) = data_filter.score([clip])
            pipe.send((row, ""))
        except Exception as error:
            pipe.send((None, f"{type(error).__name__}: {error}"))
