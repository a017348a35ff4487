"""One run at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planish.errors import WorkError
from planish.filtering.run_record import NAME

try:
    import fcntl
except ImportError:  # Windows has none; there two runs in one folder are the user's to avoid
    fcntl = None  # type: ignore[assignment]


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        WorkError: Another process holds it, or the folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = folder / f".{NAME}.lock"
    try:
        file = path.open("a")
    except OSError as error:
        raise WorkError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkError(
                f"another 'planish filter' writes to {folder}; wait for it, or name another folder"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
