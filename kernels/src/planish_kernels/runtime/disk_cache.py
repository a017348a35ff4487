"""Files that can be recomputed: where they live, and how they are written so that nobody ever reads half of one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

CACHE_DIR_VARIABLE = "PLANISH_CACHE_DIR"


class CacheWarning(UserWarning):
    """The cache cannot be written: work is redone in every process."""


def cache_dir(name: str) -> Path:
    """The folder of the cache ``name``: under ``PLANISH_CACHE_DIR``, else the platform's cache folder. Not created."""
    chosen = os.environ.get(CACHE_DIR_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / name
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "planish" / name


_DIGEST_BYTES = 32
_UNWRITABLE: set[Path] = set()


def read_cached(path: Path) -> bytes | None:
    """What ``write_cached`` stored at ``path``; None where there is nothing, or where the file is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return payload if hashlib.sha256(payload).digest() == digest else None


def write_cached(path: Path, payload: bytes) -> bool:
    """Store ``payload`` with its checksum: written beside ``path``, then renamed over it.

    Returns:
        whether it was stored. A folder that cannot be written warns once, and is no error.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(payload).digest() + payload)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if path.parent not in _UNWRITABLE:
            _UNWRITABLE.add(path.parent)
            warnings.warn(
                f"the cache {path.parent} cannot be written ({error}): set {CACHE_DIR_VARIABLE} to a folder that can",
                CacheWarning,
                stacklevel=2,
            )
        return False
    return True
