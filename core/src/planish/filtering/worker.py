"""What a worker process of the local engine does: build the filter, score groups of clips, end with its parent."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from planish.filtering.scoring import FATAL, score_group
from planish.filtering.threads import limited_threads
from planish.interfaces.engine import FilterJob

_LONGEST_OUTPUT = 1 << 20
"""Bytes of output that are kept for a report on the worker's end."""


def work(connection: Connection, job: FilterJob, threads: int, output: str) -> None:
    """Serve until the connection closes.

    The parent receives ``("ready",)``, ``("log", logger, level, message)`` and, for each group of clips that it sends,
    ``("rows", [column -> value])``; or at last ``("failed", kind, message)``, if the filter can do nothing at all.

    Args:
        connection: To the parent.
        job: The filter.
        threads: Threads of numerical libraries.
        output: File that takes what libraries print, so that it cannot garble the parent's terminal.
    """
    with suppress(AttributeError, OSError):
        os.setpgid(0, 0)  # so that what a filter starts can be ended together with it
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable(file=2)
    threading.Thread(target=_end_with_parent, args=(output,), daemon=True).start()
    lock = threading.Lock()

    def send(*message: Any) -> None:
        with lock:
            connection.send(message)

    logging.getLogger().addHandler(_Forward(send))
    try:
        try:
            data_filter = job.build()
        except Exception as error:
            logging.getLogger(__name__).debug("the filter cannot be built", exc_info=error)
            send("failed", type(error).__name__, " ".join(str(error).split()))
            return
        send("ready")
        while True:
            clips = connection.recv()
            if clips is None:
                return
            try:
                with limited_threads(threads):
                    rows = score_group(data_filter, clips)
            except FATAL as error:
                send("failed", type(error).__name__, " ".join(str(error).split()))
                return
            send("rows", [row.model_dump() for row in rows])
            if os.fstat(2).st_size > _LONGEST_OUTPUT:
                os.ftruncate(2, 0)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        _tidy(output)  # the parent is gone and cannot do it


def _end_with_parent(output: str) -> None:
    """End this process when the parent is gone, even in the middle of a clip."""
    parent = parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    _tidy(output)
    with suppress(AttributeError, OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _tidy(output: str) -> None:
    """Remove what this worker has printed, and the folder for that when it is empty."""
    with suppress(FileNotFoundError):
        os.unlink(output)
    with suppress(OSError):
        os.rmdir(os.path.dirname(output))


class _Forward(logging.Handler):
    """Hands warnings to the parent, which shows each once."""

    def __init__(self, send: Any) -> None:
        super().__init__(logging.WARNING)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        with suppress(OSError):
            self._send("log", record.name, record.levelno, record.getMessage())
