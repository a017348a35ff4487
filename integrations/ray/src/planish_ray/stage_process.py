"""The process that runs a filter's stages, as a child of the Ray worker that feeds it.

A clip that takes it down, or that never ends, so costs neither the Ray worker nor the other clips. It reads pickles
from its standard input and answers on what was its standard output: first a path and a :class:`Start`, answered by
``Ready`` or ``Failed``; then lists of works, each answered by ``Done`` or ``Failed``. It ends when its input ends or
its parent is gone. What belongs to a clip is pickled by itself and is only opened here and by the program that started
the run, so that Ray's own workers need not be able to import a filter.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import struct
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, BinaryIO, Literal

from planish.filtering.scoring import FATAL
from planish.filtering.threads import limited_threads
from planish.interfaces.data_filter import ClipWork, DataFilter, Stage
from planish.interfaces.engine import FilterJob

Warned = tuple[str, int, str]
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Start:
    """What the process needs to begin.

    Attributes:
        job: The filter.
        stages: Indices of its stages to run, in order.
        result: What each clip becomes: a work for the next stages, a row, or a row's values.
        threads: Threads of numerical libraries.
    """

    job: FilterJob
    stages: tuple[int, ...]
    result: Literal["work", "row", "values"]
    threads: int = 1


@dataclass(frozen=True)
class Ready:
    """The filter is built."""


@dataclass(frozen=True)
class Done:
    """What became of each work.

    Attributes:
        results: Pickles.
        warnings: What was logged meanwhile at level WARNING or above: logger, level and message.
    """

    results: list[bytes]
    warnings: list[Warned]


@dataclass(frozen=True)
class Failed:
    """Building the filter, or a stage, raised.

    Attributes:
        message: What it said.
        is_final: Whether every other clip would fail alike, such as where a model cannot be loaded.
    """

    message: str
    is_final: bool = False


def send(stream: BinaryIO, value: Any) -> None:
    """Write a value."""
    data = pickle.dumps(value, protocol=5)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read a value.

    Raises:
        EOFError: The other side is gone.
    """
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    return pickle.loads(_read(stream, length))


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError(f"the stream ended after {len(data)} of {size} bytes")
    return data


def run_stages(stages: Sequence[Stage], works: Sequence[ClipWork]) -> list[ClipWork]:
    """Run stages one after the other, each in batches of its own size; a clip with an error passes by.

    Raises:
        ValueError: A stage did not return the clips that it was given.
    """
    works = list(works)
    for stage in stages:
        alive = [place for place, work in enumerate(works) if work.error is None]
        for start in range(0, len(alive), stage.batch_size):
            places = alive[start : start + stage.batch_size]
            done = stage.run([works[place] for place in places])
            if [work.clip.id for work in done] != [works[place].clip.id for place in places]:
                raise ValueError(f"stage {stage.name!r} did not return the {len(places)} clips it was given, in order")
            for place, work in zip(places, done, strict=True):
                works[place] = work
    return works


def main() -> None:
    """Serve until the input ends."""
    source = sys.stdin.buffer
    # What a filter prints goes to stderr: the answers have their stream to themselves.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings = _Warnings()
    logging.getLogger().addHandler(warnings)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        try:
            # The path first: what follows may stand there.
            sys.path += [entry for entry in receive(source) if entry not in sys.path]
            start: Start = receive(source)
            data_filter = start.job.build()
            offered = data_filter.stages()
            stages = [offered[index] for index in start.stages]
        except EOFError:
            raise
        except BaseException as error:
            send(answers, Failed(_say(error)))
            return
        send(answers, Ready())
        if find_spec("cv2") is not None:
            importlib.import_module("cv2")  # so that its threads are limited from the first clip on
        while True:
            works = [pickle.loads(work) for work in receive(source)]
            answer: Done | Failed
            try:
                with limited_threads(start.threads):
                    done = run_stages(stages, works)
                results = [pickle.dumps(_result(data_filter, start.result, work), protocol=5) for work in done]
                answer = Done(results, warnings.take())
            except FATAL as error:
                answer = Failed(_say(error), is_final=True)
            except Exception as error:
                traceback.print_exc()
                answer = Failed(_say(error))
            send(answers, answer)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _result(data_filter: DataFilter, kind: str, work: ClipWork) -> Any:
    if kind == "work":
        return work
    row = data_filter.row_of(work)
    return row if kind == "row" else row.model_dump()


def _end_with(parent: int) -> None:
    """End this process when its parent has: work for nobody would go on, and a clip that hangs would do so for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class _Warnings(logging.Handler):
    """Collects warnings, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[Warned] = set()
        self._new: list[Warned] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        said = (record.name, record.levelno, record.getMessage())
        if said not in self._said and len(self._said) < 1000:
            self._said.add(said)
            self._new.append(said)

    def take(self) -> list[Warned]:
        """Return what is new."""
        new, self._new = self._new, []
        return new


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
