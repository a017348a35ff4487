"""Writing files and folders so that a reader never meets half of one: write beside, then rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planish.errors import WorkError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as a whole or not at all.

    Raises:
        WorkError: The folder cannot be written, or the disk is full.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` as a whole or not at all.

    Raises:
        WorkError: The folder cannot be written, or the disk is full.
    """
    with replacing(path) as beside:
        beside.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write a file to; move it there if all went well.

    Raises:
        WorkError: The folder cannot be written, or the disk is full.
    """
    beside: Path | None = None
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        beside = Path(name)
        yield beside
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        raise WorkError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to fill; put it in the place of ``path`` if all went well.

    Raises:
        WorkError: The folder cannot be written, or the disk is full.
    """
    beside: Path | None = None
    try:
        make_folder(path.parent)
        beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield beside
        beside.chmod(0o755)
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.replace(old)
        beside.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise WorkError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        WorkError: It cannot be created, or a file stands in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"cannot create folder {path}: {error.strerror or error}; choose another folder") from error
