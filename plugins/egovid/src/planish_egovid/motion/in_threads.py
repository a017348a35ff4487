"""Calls that threads work off while more of them come, their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


def in_threads(
    groups: Iterable[Sequence[Callable[[], R]]], *, threads: int, most_waiting: int
) -> Iterator[Sequence[R]]:
    """Yield the results of each group of calls, in order, while threads work ahead on groups that came after it.

    Args:
        groups: Calls that do not depend on each other. Iterated over in the caller's thread, whoever works: a group
            that takes its time to come, since a GPU is at work on it, holds up no calls.
        threads: How many work; 1: the caller's own, each group when it comes.
        most_waiting: Calls whose results are not yielded yet, at most, but for a group that is larger by itself. With
            as many as that, the next group is still asked for, and begun when there is room.

    Raises:
        Exception: What the first call to fail raised; calls that have not begun are given up, those that have are
            waited for.
    """
    if threads == 1:
        for group in groups:
            yield [call() for call in group]
        return
    begun: deque[list[Future[R]]] = deque()
    waiting = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="planish-motion") as pool:
        try:
            for group in groups:
                while begun and waiting + len(group) > most_waiting:
                    waiting -= len(begun[0])
                    yield [future.result() for future in begun.popleft()]
                begun.append([pool.submit(call) for call in group])
                waiting += len(group)
                # What the calls hold on to, such as the flow of a pass, can go before the next group is there.
                del group
            while begun:
                yield [future.result() for future in begun.popleft()]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
