"""GPMF key-length-value data: the format of the metadata track in GoPro files (github.com/gopro/gpmf-parser)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import ImuError

_NUMBERS = {
    "b": ">i1",
    "B": ">u1",
    "d": ">f8",
    "f": ">f4",
    "j": ">i8",
    "J": ">u8",
    "l": ">i4",
    "L": ">u4",
    "s": ">i2",
    "S": ">u2",
    "q": ">i4",
    "Q": ">i8",
}
"""Type letter -> numpy type; q and Q are fixed-point numbers with 16 and 32 fractional bits."""
_FRACTION = {"q": 2.0**-16, "Q": 2.0**-32}
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Entry:
    """One item.

    Attributes:
        key: Four characters, such as ``"ACCL"``.
        kind: Type letter; empty for a container.
        size: Bytes of one structure.
        repeat: Number of structures.
        payload: Their bytes.
        children: Items within a container.
    """

    key: str
    kind: str
    size: int
    repeat: int
    payload: bytes
    children: tuple[Entry, ...] = ()

    def numbers(self) -> NDArray[np.float64]:
        """Return the values as float64 [repeat, values of a structure].

        Raises:
            ImuError: The type is no number, or its size does not divide the structure's.
        """
        dtype = np.dtype(_NUMBERS[self.kind]) if self.kind in _NUMBERS else None
        if dtype is None or self.size == 0 or self.size % dtype.itemsize:
            raise ImuError(f"GPMF {self.key}: type {self.kind!r} in structures of {self.size} bytes is no number")
        values = np.frombuffer(self.payload, dtype).astype(np.float64) * _FRACTION.get(self.kind, 1.0)
        return values.reshape(self.repeat, self.size // dtype.itemsize)

    def text(self) -> str:
        """Return the bytes as text, without padding."""
        return self.payload.decode("latin-1").rstrip("\0 ")

    def child(self, key: str) -> Entry | None:
        """Return the last child with a key, or None."""
        return next((entry for entry in reversed(self.children) if entry.key == key), None)

    def walk(self, key: str) -> Iterator[Entry]:
        """Yield all containers with a key, this one included, at any depth."""
        if self.key == key:
            yield self
        for entry in self.children:
            yield from entry.walk(key)


def parse(data: bytes) -> tuple[Entry, ...]:
    """Return the items of a payload.

    Raises:
        ImuError: An item reaches beyond the end, or containers are nested without end.
    """
    return _parse(memoryview(data), 0)


def _parse(data: memoryview, depth: int) -> tuple[Entry, ...]:
    if depth > _MAX_DEPTH:
        raise ImuError(f"GPMF: containers are nested more than {_MAX_DEPTH} deep; the track is damaged")
    entries, at = [], 0
    while at + 8 <= len(data):
        raw = bytes(data[at : at + 4])
        if raw == b"\0\0\0\0":  # padding to the end of the payload
            break
        key = raw.decode("latin-1")
        kind, size, repeat = data[at + 4], data[at + 5], int.from_bytes(data[at + 6 : at + 8], "big")
        length = size * repeat
        if at + 8 + length > len(data):
            raise ImuError(
                f"GPMF: {key!r} at byte {at} needs {length} bytes and {len(data) - at - 8} are left; damaged"
            )
        payload = data[at + 8 : at + 8 + length]
        children = _parse(payload, depth + 1) if kind == 0 else ()
        entries.append(Entry(key, "" if kind == 0 else chr(kind), size, repeat, bytes(payload), children))
        at += 8 + (length + 3) // 4 * 4
    return tuple(entries)
