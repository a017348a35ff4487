"""Feed: hands packs of clips to Ray Data as workers become free, and counts who died over them."""

from __future__ import annotations

import asyncio
from collections import Counter


class Feed:
    """An actor between the program that reads clips and the workers that score them.

    Ray Data may ask for a pack again after it lost a machine, so a pack stays here until its results have arrived; then
    an empty one stands in its place, which keeps the numbers.
    """

    def __init__(self) -> None:
        self._packs: dict[int, bytes] = {}
        self._count = 0
        self._closed = False
        self._changed = asyncio.Condition()
        self._begun: Counter[str] = Counter()

    async def put(self, pack: bytes) -> None:
        """Add a pack; packs are numbered from 0."""
        async with self._changed:
            self._packs[self._count] = pack
            self._count += 1
            self._changed.notify_all()

    async def close(self) -> None:
        """Say that no more packs will come."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def get(self, number: int) -> bytes | None:
        """Return a pack, once it is there; ``b""`` if its results have arrived; None if there is none."""
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._count or self._closed)
            return self._packs.get(number, b"") if number < self._count else None

    async def arrived(self, number: int) -> None:
        """Forget a pack."""
        self._packs.pop(number, None)

    async def begin(self, keys: list[str]) -> list[int]:
        """Return how many workers have died over each of these, and note that one begins with them."""
        before = [self._begun[key] for key in keys]
        self._begun.update(keys)
        return before

    async def finish(self, keys: list[str]) -> None:
        """Note that the worker that began with these lives."""
        for key in keys:
            self._begun.pop(key, None)
