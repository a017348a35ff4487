"""A running Ray: the one that is there, one at an address, or one that is started and stopped here."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from planish.errors import UnsupportedError, WorkError

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Set while Ray is started here: nothing is sent anywhere, and what its core says goes to its log files alone."""


@contextmanager
def ray_session(address: str | None, *, cpus: int | None, gpus: int | None) -> Iterator[Any]:
    """Give the module ``ray``, connected.

    A Ray that this process uses already is taken as it is and left running. Otherwise this connects to ``address`` or
    ``RAY_ADDRESS``, or starts Ray on this machine, without dashboard and usage statistics; it ends with the block.

    Raises:
        UnsupportedError: Ray is not installed, or too old.
        WorkError: It cannot be started or reached.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    before = {name: os.environ.get(name) for name in QUIET}
    try:
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if where == "local":
            os.environ.update(QUIET)
            options |= {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False}
        try:
            _knock(where)
            with _silence() if where == "local" else nullcontext():
                ray.init(address=where, **options)
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            what = "start Ray on this machine" if where == "local" else f"connect to Ray at {where!r}"
            raise WorkError(
                f"cannot {what} ({type(error).__name__}: {said}); "
                "check 'ray status', the address, and free space in /tmp"
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silence() -> Iterator[None]:
    """Keep off the terminal what Ray's core says of its log level, below Python; failures are raised all the same."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _knock(address: str) -> None:
    """Raise an OSError if nobody listens at an address: Ray would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"Ray Data is not installed here ({error}); run: pip install 'ray[data]>=2.47'"
        ) from error
    return ray
