"""WorkerPool: processes that score groups of clips, of which each may die or hang without harm to the others.

The parent knows which group each worker holds. A group whose worker dies or is too slow is scored again clip by clip in
fresh workers, so that in the end one clip is blamed and gets an error row.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from planish import errors
from planish.errors import PlanishError, WorkError
from planish.filtering.scoring import error_row
from planish.filtering.threads import VARIABLES
from planish.filtering.worker import work
from planish.interfaces.data_filter import Clip, Row
from planish.interfaces.engine import FilterJob

_log = logging.getLogger(__name__)
_START_S = 300.0
"""Seconds that a worker may take to import and build the filter."""
_LEAVE_S = 5.0
"""Seconds that a worker without further work may take to end by itself."""
_START_TRIES = 3
"""Workers that may die one after the other before the first group; then something other than a clip is wrong."""


@dataclass
class _Group:
    clips: Sequence[Clip]
    retried: bool = False


@dataclass
class _Worker:
    process: Any
    connection: Connection
    output: Path
    group: _Group
    since: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    done: bool = False


class WorkerPool:
    """Workers for one filter. Use it once: ``for rows in pool.run(groups)``."""

    def __init__(self, job: FilterJob, *, workers: int, timeout_s: float, threads: int) -> None:
        """Prepare the pool; workers start when there are clips for them.

        Args:
            job: The filter.
            workers: Processes at most.
            timeout_s: Seconds that one clip may take.
            threads: Threads of numerical libraries in each worker.

        Raises:
            PlanishError: The filter cannot be built.
        """
        self._job, self._size, self._timeout_s, self._threads = job, workers, timeout_s, threads
        self._filter = job.build()
        self._workers: list[_Worker] = []
        self._leaving: list[_Worker] = []
        self._again: deque[_Group] = deque()
        self._said: set[tuple[str, str]] = set()
        self._slowest_s: float | None = None
        self._started = self._failed_starts = 0

    def run(self, groups: Iterable[Sequence[Clip]]) -> Iterator[list[Row]]:
        """Yield rows as they come. The workers end with the iterator, however it ends.

        Raises:
            WorkError: Workers cannot start.
            PlanishError: The filter can do nothing at all: it cannot be built in a worker, or a model not be loaded.
        """
        source = iter(groups)
        with _temporary_folder() as folder:
            try:
                while True:
                    self._hand_out(source, folder)
                    if not self._workers:
                        return
                    yield from self._collect()
            finally:
                self._end()

    def _hand_out(self, source: Iterator[Sequence[Clip]], folder: Path) -> None:
        """Give a group to every worker that has none, starting workers up to the number allowed; end idle ones."""
        for worker in [one for one in self._workers if one.done]:
            group = self._next(source)
            if group is None:
                self._dismiss(worker)
            else:
                worker.group, worker.since, worker.done = group, time.monotonic(), False
                self._send(worker)
        while len(self._workers) < self._size and (group := self._next(source)) is not None:
            self._workers.append(self._start(group, folder))

    def _next(self, source: Iterator[Sequence[Clip]]) -> _Group | None:
        if self._again:
            return self._again.popleft()
        clips = next(source, None)
        return None if clips is None else _Group(tuple(clips))

    def _collect(self) -> Iterator[list[Row]]:
        """Wait until a worker reports, dies or is too slow, and yield the rows that follow from it."""
        now = time.monotonic()
        patience = max(0.0, min(self._deadline(worker) for worker in self._workers) - now)
        by_handle: dict[Any, _Worker] = {}
        for worker in self._workers:
            by_handle |= {worker.connection: worker, worker.process.sentinel: worker}
        touched = {id(w): w for w in (by_handle[handle] for handle in wait(list(by_handle), patience))}
        for worker in touched.values():
            yield from self._read(worker)
        now = time.monotonic()
        for worker in [one for one in self._workers if not one.done and self._deadline(one) < now]:
            if not worker.connection.poll():
                yield from self._expire(worker)

    def _read(self, worker: _Worker) -> Iterator[list[Row]]:
        """Take what a worker has sent; where that is its end, see to its group."""
        try:
            while worker.connection.poll():
                kind, *values = worker.connection.recv()
                if kind == "rows":
                    worker.done = True
                    pace = (time.monotonic() - worker.since) / max(1, len(worker.group.clips))
                    self._slowest_s = max(self._slowest_s or 0.0, pace)
                    yield [self._filter.Columns.model_validate(value) for value in values[0]]
                elif kind == "ready":
                    worker.is_ready, self._failed_starts = True, 0
                    worker.since = time.monotonic()
                    self._send(worker)
                elif kind == "log":
                    self._relay(*values)
                else:
                    raise _build_error(self._filter.name, *values)
            if worker.process.is_alive():
                return
        except (EOFError, OSError):
            pass
        yield from self._bury(worker)

    def _bury(self, worker: _Worker, reason: str | None = None) -> Iterator[list[Row]]:
        """See to the group of a worker that has died."""
        reason = reason or _cause_of_death(worker)
        said = self._remove(worker)
        if worker.done:
            return
        if not worker.is_ready:
            self._failed_starts += 1
            self._again.appendleft(worker.group)
            if self._failed_starts >= _START_TRIES:
                raise WorkError(
                    f"workers die while they start ({reason}){f'; the last said: {said}' if said else ''}; "
                    "in_process=true scores without workers"
                )
            return
        _log.debug("%s while it held %s; it had said: %s", reason, [clip.id for clip in worker.group.clips], said)
        if len(worker.group.clips) == 1 and worker.group.retried:
            yield [error_row(self._filter, worker.group.clips[0], reason)]
        else:
            self._again.extend(_Group([clip], retried=True) for clip in worker.group.clips)

    def _expire(self, worker: _Worker) -> Iterator[list[Row]]:
        """End a worker that is too slow, and see to its group."""
        _kill(worker)
        if not worker.is_ready:
            yield from self._bury(worker, f"a worker is not ready within {_START_S:g} s")
            return
        self._remove(worker)
        clips = worker.group.clips
        if len(clips) == 1:  # it had its time for itself
            yield [error_row(self._filter, clips[0], f"no result within {self._timeout_s:g} s")]
        else:
            self._again.extend(_Group([clip], retried=True) for clip in clips)

    def _deadline(self, worker: _Worker) -> float:
        """Return the monotonic time at which a worker's patience ends.

        A clip may take ``timeout_s``. The others of its group get ten times what the slowest group so far has needed,
        at most as much: a group that is cut off wrongly costs time, not rows.
        """
        if not worker.is_ready:
            return worker.since + _START_S
        slowest = self._timeout_s if self._slowest_s is None else min(self._timeout_s, 10 * self._slowest_s)
        return worker.since + self._timeout_s + (len(worker.group.clips) - 1) * slowest

    def _start(self, group: _Group, folder: Path) -> _Worker:
        context = get_context("spawn")
        self._started += 1
        output = folder / f"{self._started}.log"
        try:
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, self._job, self._threads, str(output)), daemon=True)
            with theirs, _environment({name: str(self._threads) for name in VARIABLES}), _without_interrupts():
                process.start()
        except OSError as error:
            raise WorkError(f"cannot start a worker: {error.strerror or error}; take fewer workers") from error
        return _Worker(process, ours, output, group)

    def _send(self, worker: _Worker) -> None:
        with suppress(OSError):  # a worker that has died is met when its end of the pipe is read
            worker.connection.send(worker.group.clips)

    def _dismiss(self, worker: _Worker) -> None:
        with suppress(OSError):
            worker.connection.send(None)
        self._workers.remove(worker)
        self._leaving.append(worker)

    def _remove(self, worker: _Worker) -> str:
        """Forget a worker, making sure that it is gone, and return the end of what it had printed."""
        if worker in self._workers:
            self._workers.remove(worker)
        _kill(worker)
        worker.process.join()
        worker.process.close()
        worker.connection.close()
        said = ""
        with suppress(OSError):
            said = " ".join(worker.output.read_text(errors="replace")[-2000:].split())
            worker.output.unlink()
        return said

    def _end(self) -> None:
        for worker in self._workers:
            _kill(worker)
        for worker in self._leaving:
            worker.process.join(_LEAVE_S)
        for worker in [*self._workers, *self._leaving]:
            self._remove(worker)

    def _relay(self, logger: str, level: int, message: str) -> None:
        if (logger, message) not in self._said and len(self._said) < 1000:
            self._said.add((logger, message))
            logging.getLogger(logger).log(level, "%s", message)


def _kill(worker: _Worker) -> None:
    """Kill a worker and what it has started, if it lives."""
    if not worker.process.is_alive():
        return
    with suppress(AttributeError, OSError):
        if os.getpgid(worker.process.pid) == worker.process.pid:
            os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.kill()


def _cause_of_death(worker: _Worker) -> str:
    worker.process.join(5)
    code = worker.process.exitcode
    if code is None or code >= 0:
        return "worker closed its pipe" if code is None else f"worker exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    doubt = "; out of memory?" if -code == signal.SIGKILL else ""
    return f"worker killed by signal {-code} ({name}){doubt}"


def _build_error(name: str, kind: str, message: str) -> PlanishError:
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, PlanishError):
        return known(message)
    return WorkError(f"{name} cannot be created in a worker: {kind}: {message}")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Give a folder for what workers print."""
    try:
        made = tempfile.TemporaryDirectory(prefix="planish-workers-", ignore_cleanup_errors=True)
    except OSError as error:
        raise WorkError(
            f"cannot write to the temporary folder: {error.strerror or error}; free space or set TMPDIR to another"
        ) from error
    with made as name:
        yield Path(name)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C: processes that are started meanwhile inherit that, and leave it to the parent to end them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
