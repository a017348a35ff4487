"""Cutting groups of clips into packs."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from planish.interfaces.data_filter import Clip
from planish_ray.packs import Pack, Packs, cut


def groups(sizes: list[int]) -> list[list[Clip]]:
    return [[Clip(f"{file}-{i}", f"{file}.mp4") for i in range(size)] for file, size in enumerate(sizes)]


def taken(packs: Packs) -> list[Pack]:
    found = []
    while (pack := packs.take()) is not None:
        found.append(pack)
    return found


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 16), st.integers(1, 4))
def test_no_clip_is_lost_and_order_stays(sizes: list[int], size: int, spread: int) -> None:
    given_groups = groups(sizes)
    packs = taken(Packs(given_groups, size, spread=spread))
    assert [clip for pack in packs for clip in pack.clips] == [clip for group in given_groups for clip in group]
    assert all(0 < len(pack) <= size for pack in packs)


def test_small_groups_share_a_pack_and_stay_whole() -> None:
    assert [len(pack) for pack in cut(groups([3, 3, 3, 20, 1]), 8)] == [6, 3, 8, 8, 5]


def test_few_clips_are_spread() -> None:
    few, many = Packs(groups([1] * 32), 16, spread=2), Packs(groups([1] * 320), 16, spread=2)
    assert {len(pack) for pack in taken(few)} == {2}
    assert {len(pack) for pack in taken(many)} == {16}
    assert (few.are_few, many.are_few) == (True, False)


def test_no_more_is_read_than_needed() -> None:
    read = 0

    def many() -> Iterator[list[Clip]]:
        nonlocal read
        while True:
            read += 1
            yield [Clip(f"{read}", "a.mp4")]

    packs = Packs(many(), 4, spread=2)
    assert packs.take() is not None
    assert read <= 4 * 2 * 2 + 4


def test_lost_packs_come_back_one_by_one() -> None:
    packs = Packs(groups([3]), 3, spread=1)
    (first, *_) = taken(packs)
    packs.give_back(first)
    assert packs.more()
    assert [(len(pack), pack.attempts) for pack in taken(packs)] == [(1, 1)] * len(first)
    assert not packs.more()
