"""IsolatedStages: stages of a filter in a process that may die or hang without harm."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

from planish.errors import WorkError
from planish.filtering.threads import VARIABLES

from planish_ray.stage_process import Done, Failed, Ready, Start, Warned, receive, send

_log = logging.getLogger(__name__)
START_TIMEOUT_S = 600.0


class WorkerDied(Exception):
    """The process ended by itself, or was ended, while it worked."""


class WorkerHung(Exception):
    """The process did not answer in time and was ended."""


class StageRaised(Exception):
    """A stage raised, which it should not."""


@dataclass(frozen=True)
class Lost:
    """Stands for a clip that cannot be scored.

    Attributes:
        error: Why.
    """

    error: str


class IsolatedStages:
    """Runs stages over clips; each clip gets a result whatever happens to the process.

    The process is started at first use, and anew after it died or was ended.
    """

    def __init__(self, start: Start, path: Sequence[str], *, timeout_s: float | None) -> None:
        """Create the handle; nothing runs yet.

        Args:
            start: What to run.
            path: Where else modules are imported from: ``sys.path`` of the program that started the run.
            timeout_s: Seconds that one clip may take; None for no limit.
        """
        self._start, self._path, self._timeout_s = start, list(path), timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._slowest_s: float | None = None
        self.warnings: list[Warned] = []
        """What the process has logged; whoever reads it empties it."""

    def run(self, works: Sequence[bytes | Lost]) -> list[bytes | Lost]:
        """Return what each clip has become, pickled as the works are; a clip that is lost stays lost.

        A batch that takes the process down, hangs or raises is repeated clip by clip, so that only the clips at fault
        get an error.

        Raises:
            WorkError: The process cannot be started, or the filter cannot be built or do anything in it.
        """
        alive = [work for work in works if not isinstance(work, Lost)]
        results = iter(self._run(alive)) if alive else iter(())
        return [work if isinstance(work, Lost) else next(results) for work in works]

    def _run(self, works: Sequence[bytes]) -> list[bytes | Lost]:
        try:
            return [*self._ask(works)]
        except (WorkerDied, WorkerHung, StageRaised) as error:
            if len(works) > 1:
                _log.info("%d clips are repeated one by one: %s", len(works), error)
                return [result for work in works for result in self._run([work])]
            return [Lost(str(error))]

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # does nothing to one that ended by itself
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    # What is still buffered for a process that is gone cannot be flushed.
                    with suppress(BrokenPipeError):
                        stream.close()

    def _ask(self, works: Sequence[bytes]) -> list[bytes]:
        process = self._process or self._launch()
        began = time.monotonic()
        try:
            send(cast(BinaryIO, process.stdin), list(works))
            answer = self._answer(process, self._patience(len(works)))
        except (EOFError, BrokenPipeError):
            self._bury(process)
            raise WorkerDied(_cause_of_death(process.returncode)) from None
        except TimeoutError:
            self.close()
            raise WorkerHung(f"no result within {self._timeout_s:g} s") from None
        if isinstance(answer, Failed):
            if answer.is_final:
                raise WorkError(f"filter {self._start.job.target!r} cannot work on a Ray worker: {answer.message}")
            raise StageRaised(answer.message)
        done = cast(Done, answer)
        self._slowest_s = max(self._slowest_s or 0.0, (time.monotonic() - began) / len(works))
        self.warnings += done.warnings
        return done.results

    def _patience(self, clips: int) -> float | None:
        """Return the seconds that a batch may take.

        One clip may take ``timeout_s``. The others get ten times what the slowest batch so far has needed a clip, at
        most as much: a batch that is cut off wrongly costs time, not rows.
        """
        if self._timeout_s is None:
            return None
        slowest = self._timeout_s if self._slowest_s is None else min(self._timeout_s, 10 * self._slowest_s)
        return self._timeout_s + (clips - 1) * slowest

    def _launch(self) -> subprocess.Popen[bytes]:
        threads = str(self._start.threads)
        self._process = process = subprocess.Popen(
            [sys.executable, "-c", "from planish_ray.stage_process import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(VARIABLES, threads)},
        )
        try:
            stdin = cast(BinaryIO, process.stdin)
            send(stdin, self._path)
            send(stdin, self._start)
            answer = self._answer(process, START_TIMEOUT_S)
        except (EOFError, BrokenPipeError):
            self._bury(process)
            why = f"its process died at the start ({_cause_of_death(process.returncode)})"
        except TimeoutError:
            self.close()
            why = f"its process was not ready after {START_TIMEOUT_S:g} s"
        else:
            if not isinstance(answer, Failed):
                return process
            self.close()
            why = answer.message
        raise WorkError(
            f"filter {self._start.job.target!r} cannot be built on a Ray worker: {why}; "
            "the machine needs the same packages, in the same versions, as this one"
        )

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        # The pipe closes a moment before the process has ended; killed in between, its own exit code would be lost.
        with suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        self.close()

    def _answer(self, process: subprocess.Popen[bytes], limit_s: float | None) -> Ready | Done | Failed:
        stream = cast(BinaryIO, process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            if not selector.select(limit_s):
                raise TimeoutError
        return cast(Ready | Done | Failed, receive(stream))


def _cause_of_death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"worker exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    doubt = "; out of memory?" if -code == signal.SIGKILL else ""
    return f"worker killed by signal {-code} ({name}){doubt}"
