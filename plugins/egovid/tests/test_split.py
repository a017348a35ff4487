"""Sets that share no source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.errors import ConfigError
from planish.interfaces import Clip
from planish_egovid.clips import part_of, shared_sources, split


def clips(sources: int, each: int = 3) -> list[Clip]:
    return [Clip(f"uuid_{s}_{120 * i}_{120 * i + 120}", f"uuid_{s}.mp4") for i in range(each) for s in range(sources)]


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 5))
def test_no_source_is_in_both(sources: int, fraction: float, seed: int) -> None:
    given_clips = clips(sources)
    train, val = split(given_clips, fraction, seed)
    assert shared_sources(train, val) == []
    assert sorted(c.id for c in [*train, *val]) == sorted(c.id for c in given_clips)


def test_shared_sources_are_found() -> None:
    assert shared_sources(clips(4)[:3], clips(3)[3:]) == ["uuid_0", "uuid_1", "uuid_2"]


def test_sources_stay_where_they_are_when_others_come() -> None:
    _, few = split(clips(50), 0.2)
    _, many = split(clips(400), 0.2)
    assert {c.id for c in few} == {c.id for c in many} & {c.id for c in clips(50)}


def test_larger_fraction_keeps_the_former_validation_set() -> None:
    small = {s for s in range(500) if part_of(f"s{s}", 0.05) == "val"}
    large = {s for s in range(500) if part_of(f"s{s}", 0.2) == "val"}
    assert small < large


def test_fraction_is_met() -> None:
    # 4000 draws at 0.1: five standard deviations are 0.024.
    share = sum(part_of(f"source-{s}", 0.1, seed=3) == "val" for s in range(4000)) / 4000
    assert share == pytest.approx(0.1, abs=0.024)
    assert part_of("a", 1.0) == "val"
    assert part_of("a", 0.0) == "train"


def test_seed_draws_others() -> None:
    assert {s for s in range(300) if part_of(f"{s}", 0.3, 0) == "val"} != {
        s for s in range(300) if part_of(f"{s}", 0.3, 1) == "val"
    }


def test_clips_without_released_ids_go_by_file() -> None:
    given_clips = [Clip(f"c{i}", f"video{i % 7}.mp4") for i in range(70)]
    train, val = split(given_clips, 0.5)
    assert {c.path for c in train} & {c.path for c in val} == set()
    assert train
    assert val


def test_fraction_out_of_bounds() -> None:
    with pytest.raises(ConfigError, match=r"val_fraction is 1\.5"):
        split(clips(2), 1.5)
