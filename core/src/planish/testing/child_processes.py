"""Which processes this one has started, and whether they end."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Collection
from pathlib import Path


def child_processes() -> dict[int, str]:
    """Return process number -> command line of each descendant that runs.

    Where the system has no ``/proc``, only those that :mod:`multiprocessing` started are known.
    """
    if not Path("/proc/self/stat").exists():
        return {child.pid: child.name for child in multiprocessing.active_children() if child.pid is not None}
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The command stands in brackets and may hold anything; state and parent follow it.
                state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue  # it ended meanwhile
            if state not in "ZX":
                parents[int(folder.name)] = int(parent)
    found: dict[int, str] = {}
    unseen = [os.getpid()]
    while unseen:
        parent_id = unseen.pop()
        children = [child for child, parent in parents.items() if parent == parent_id]
        unseen += children
        found |= {child: _command(child) for child in children}
    return found


def left_running(before: Collection[int], *, expected: Collection[str], patience_s: float) -> list[str]:
    """Return the command lines of descendants that were started since and do not end.

    Args:
        before: Process numbers that were there before.
        expected: A process whose command line holds one of these may stay.
        patience_s: Seconds that the others get to end.
    """
    deadline = time.monotonic() + patience_s
    while True:
        left = [
            command or f"process {number}"
            for number, command in child_processes().items()
            if number not in before and not any(word in command for word in expected)
        ]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _command(number: int) -> str:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
