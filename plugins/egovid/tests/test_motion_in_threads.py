"""Calls that threads work off while more of them come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from planish_egovid.motion.in_threads import in_threads

SOON_S = 60.0
"""What is awaited comes at once, if it comes at all."""


def value(number: int) -> int:
    return number


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("most_waiting", [1, 4, 100])
def test_results_come_by_group_in_order(threads: int, most_waiting: int) -> None:
    sizes = [3, 0, 7, 1, 1, 0, 2]
    groups = [[partial(value, 10 * i + j) for j in range(size)] for i, size in enumerate(sizes)]
    found = list(in_threads(groups, threads=threads, most_waiting=most_waiting))
    assert found == [[10 * i + j for j in range(size)] for i, size in enumerate(sizes)]


def test_a_slow_call_does_not_let_those_after_it_come_first() -> None:
    second_is_done = threading.Event()

    def first() -> str:
        assert second_is_done.wait(SOON_S)
        return "first"

    def second() -> str:
        second_is_done.set()
        return "second"

    found = in_threads([[first], [second]], threads=2, most_waiting=9)
    assert list(found) == [["first"], ["second"]]


def test_calls_are_worked_off_while_the_next_group_is_on_its_way() -> None:
    worked = threading.Event()

    def groups() -> Iterator[list[Callable[[], object]]]:
        yield [worked.set]
        assert worked.wait(SOON_S), "nobody works as long as the next group does not come"
        yield [worked.is_set]

    assert list(in_threads(groups(), threads=2, most_waiting=9)) == [[None], [True]]


@pytest.mark.parametrize("most_waiting", [1, 9])
def test_the_next_group_is_asked_for_while_calls_are_at_work(most_waiting: int) -> None:
    asked = threading.Event()

    def groups() -> Iterator[list[Callable[[], bool]]]:
        yield [partial(asked.wait, SOON_S)]
        asked.set()
        yield []

    assert list(in_threads(groups(), threads=2, most_waiting=most_waiting)) == [[True], []]


def test_few_calls_wait() -> None:
    made = taken = 0
    open_groups = []

    def groups() -> Iterator[list[Callable[[], int]]]:
        nonlocal made
        for number in range(20):
            made += 1
            open_groups.append(made - taken)
            yield [partial(value, number)] * 2

    for _ in in_threads(groups(), threads=3, most_waiting=6):
        taken += 1
    assert taken == 20
    assert max(open_groups) == 4, "three groups of two that wait, and the next one in hand"


def test_a_group_larger_than_what_may_wait_goes_alone() -> None:
    groups = [[partial(value, i)] * 5 for i in range(4)]
    assert list(in_threads(groups, threads=2, most_waiting=3)) == [[i] * 5 for i in range(4)]


def test_an_error_gives_up_what_has_not_begun() -> None:
    begun: list[int] = []

    def fail() -> None:
        raise KeyError("broken")

    def slow() -> None:
        begun.append(1)
        time.sleep(0.02)

    with pytest.raises(KeyError, match="broken"):
        list(in_threads([[fail], [slow] * 2000], threads=2, most_waiting=5000))
    assert len(begun) < 2000, "all of them would have taken 20 s"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("planish-motion")]


def test_an_error_of_the_groups_is_raised() -> None:
    def groups() -> Iterator[list[Callable[[], int]]]:
        yield [partial(value, 1)]
        raise OSError("the GPU is gone")

    with pytest.raises(OSError, match="the GPU is gone"):
        list(in_threads(groups(), threads=2, most_waiting=9))
