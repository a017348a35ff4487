"""The state of a clip's file, and the fingerprint that tells whether a stored row still describes the clip."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache

from planish.interfaces.data_filter import Clip

_CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceState:
    """A file as it was found.

    Attributes:
        size: Bytes; None if it could not be looked at, such as a missing file or one in an object store.
        mtime_ns: Time of its last change, nanoseconds since 1970; None likewise.
    """

    size: int | None
    mtime_ns: int | None


@lru_cache(maxsize=1024)
def source_state(path: str) -> SourceState:
    """Return the state of a file. Remembered for a while: clips of one file come one after the other."""
    try:
        found = os.stat(path)
    except OSError:
        return SourceState(None, None)
    return SourceState(found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def source_sha256(path: str) -> str | None:
    """Return the SHA-256 of a file's bytes, in hexadecimal; None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def forget_sources() -> None:
    """Forget what files were like: a new run looks at them anew."""
    source_state.cache_clear()
    source_sha256.cache_clear()


def fingerprint(clip: Clip, state: SourceState) -> str:
    """Return what changes whenever a clip must be scored again: 32 hexadecimal digits.

    It covers the clip's id, range, text and further columns, and size and time of its file; not the file's path, so
    that rows stay valid when a data set moves as a whole.
    """
    parts = [clip.id, clip.start_s, clip.end_s, clip.text, dict(clip.extra), state.size, state.mtime_ns]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
