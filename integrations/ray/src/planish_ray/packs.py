"""Packs: the clips of a run, cut into what travels together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from planish.interfaces.data_filter import Clip


@dataclass(frozen=True)
class Pack:
    """Clips that travel together.

    Attributes:
        clips: The clips.
        attempts: How many executions have lost them.
    """

    clips: tuple[Clip, ...]
    attempts: int = 0

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)


class Packs:
    """Cuts groups of clips into packs, as they are asked for, and takes back those that were lost."""

    def __init__(self, groups: Iterable[Sequence[Clip]], size: int, *, spread: int) -> None:
        """Create the source; nothing is read yet.

        Args:
            groups: Clips of one file together.
            size: Clips in a pack at most.
            spread: Workers that should all have something to do even if there are few clips.

        Attributes:
            size: Clips in a pack at most; smaller than given once it is known that there are few clips.
            are_few: Whether there are too few clips to keep all workers busy for long; known once a pack was taken.
        """
        self.size, self.are_few = size, False
        self._groups, self._spread = iter(groups), spread
        self._ready: deque[Pack] = deque()
        self._cut: Iterator[Pack] | None = None

    def more(self) -> bool:
        """Return whether there is another pack; reads on if need be."""
        if not self._ready:
            if self._cut is None:
                self._cut = self._start()
            found = next(self._cut, None)
            if found is not None:
                self._ready.append(found)
        return bool(self._ready)

    def take(self) -> Pack | None:
        """Return the next pack, or None if there is none."""
        return self._ready.popleft() if self.more() else None

    def give_back(self, pack: Pack) -> None:
        """Take back the clips of a pack that was lost; they come again one by one, because one may be the cause."""
        self._ready.extend(Pack((clip,), pack.attempts + 1) for clip in pack.clips)

    def _start(self) -> Iterator[Pack]:
        # Few clips are spread over all workers, several packs each so that unequal ones even out.
        enough = self.size * self._spread * 2
        first: list[Sequence[Clip]] = []
        count = 0
        for group in self._groups:
            first.append(group)
            count += len(group)
            if count >= enough:
                return cut(chain(first, self._groups), self.size)
        self.are_few = True
        self.size = max(1, min(self.size, -(-count // (self._spread * 8))))
        return cut(first, self.size)


def cut(groups: Iterable[Sequence[Clip]], size: int) -> Iterator[Pack]:
    """Yield packs of at most ``size`` clips; small groups share a pack, large ones are cut."""
    open_: list[Clip] = []
    for group in groups:
        if open_ and len(open_) + len(group) > size:
            yield Pack(tuple(open_))
            open_ = []
        open_.extend(group)
        while len(open_) >= size:
            yield Pack(tuple(open_[:size]))
            open_ = open_[size:]
    if open_:
        yield Pack(tuple(open_))
