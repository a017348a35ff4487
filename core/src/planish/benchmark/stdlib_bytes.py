"""The built-in corpus: the source of Python's standard library, byte by byte, split by file."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from planish.errors import DataError

_LEFT_OUT = ("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__")


def read_corpus(limit: int = 24_000_000) -> tuple[Tensor, Tensor]:
    """Training and validation text as uint8 tensors.

    A tenth of the files, chosen by a hash of their names, is kept for validation, so no file is in both parts.

    Args:
        limit: Bytes after which no further file is read.

    Raises:
        DataError: This Python has no readable standard library.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    total = 0
    for path in _sources(root):
        if total >= limit:
            break
        name = path.relative_to(root)
        try:
            text = path.read_bytes()
        except OSError:
            continue
        total += len(text)
        is_held_out = hashlib.sha256(name.as_posix().encode()).digest()[0] < 26
        parts[is_held_out].append(text + b"\n")
    if not all(parts):
        raise DataError(f"{root} holds no Python sources; this Python was installed without its standard library")
    train, held_out = (torch.frombuffer(bytearray(b"".join(part)), dtype=torch.uint8) for part in parts)
    return train, held_out


def _sources(root: Path) -> Iterator[Path]:
    """Python files in a fixed order, without tests and installed packages."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT)
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def windows(text: Tensor, length: int, batch: int, *, seed: int, device: str) -> Iterator[Tensor]:
    """Endless random windows, int64 ``[batch, length + 1]``, in an order that only the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    text, reach = text.to(device), torch.arange(length + 1)
    while True:
        starts = torch.randint(len(text) - length, (batch, 1), generator=generator)
        yield text[(starts + reach).to(device)].long()
