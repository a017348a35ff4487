"""RayEngine: the rows of score(), whatever happens to workers."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import ray
import ray_filters
from planish.errors import ConfigError, PlanishError, UnsupportedError, WorkError
from planish.filtering.local_engine import LocalEngine
from planish.interfaces.data_filter import Clip
from planish.interfaces.engine import FilterEngine, FilterJob
from planish_ray.engine import RayEngine

pytestmark = pytest.mark.usefixtures("ray_on_two_cores")


def clips(count: int, **texts: str) -> list[Clip]:
    return [Clip(f"clip{i:03d}" + "x" * (i % 5), f"/none/{i}", text=texts.get(f"c{i}")) for i in range(count)]


def rows(engine: FilterEngine, data_filter, groups) -> list:
    found = [row for some in engine.run(FilterJob.of(data_filter), groups) for row in some]
    return sorted(found, key=lambda row: row.clip_id)


def test_local_pool_and_ray_give_the_same_rows() -> None:
    given = clips(30, c3="unreadable", c8="raise", c11="die", c17="exit")
    groups = [given[:1], given[1:12], given[12:13], given[13:]]
    for data_filter in (ray_filters.Counting(offset=3), ray_filters.Staged(offset=3)):
        on_ray = rows(RayEngine(workers=2), data_filter, groups)
        assert on_ray == rows(LocalEngine(workers=2), data_filter, groups)
        harmless = [clip for clip in given if clip.text in (None, "unreadable")]
        here = {row.clip_id: row for row in data_filter.score(harmless)}
        assert [row for row in on_ray if row.clip_id in here] == sorted(here.values(), key=lambda row: row.clip_id)
        assert {row.clip_id: row.error for row in on_ray if row.error} == {
            given[3].id: "cannot read /none/3",
            given[8].id: "RuntimeError: this clip makes the stage raise",
            given[11].id: "worker killed by signal 9 (SIGKILL); out of memory?",
            given[17].id: "worker exited with code 3",
        }


@pytest.mark.parametrize("batch_size", [1, 7])
def test_rows_do_not_depend_on_batches_and_order(batch_size: int) -> None:
    given = clips(23, c3="unreadable")
    expected = sorted(ray_filters.Staged().score(given), key=lambda row: row.clip_id)
    random.Random(batch_size).shuffle(given)
    groups = [given[i : i + batch_size + 1] for i in range(0, len(given), batch_size + 1)]
    assert rows(RayEngine(workers=2, batch_size=batch_size), ray_filters.Staged(), groups) == expected


def test_workers_work_at_the_same_time(tmp_path: Path) -> None:
    # Each of the two clips waits until the other is being scored, which one worker alone would do for ever.
    given = [Clip(name, str(tmp_path), text=f"meet {other}") for name, other in (("left", "right"), ("right", "left"))]
    found = rows(RayEngine(workers=2, timeout_s=60.0), ray_filters.WhoDid(), [given])
    assert [row.error for row in found] == [None, None]
    assert len({row.pid for row in found}) == 2
    assert os.getpid() not in {row.pid for row in found}


def test_clip_that_kills_ray_workers_costs_itself_alone() -> None:
    given = clips(6, c4="kill the Ray worker")
    found = rows(RayEngine(workers=1), ray_filters.Counting(), [given])
    assert [row.clip_id for row in found] == sorted(clip.id for clip in given)
    assert {row.clip_id: row.error for row in found if row.error} == {
        given[4].id: "2 Ray workers died over this clip; out of memory?"
    }


def test_clip_that_hangs_costs_itself_alone() -> None:
    given = clips(5, c2="hang")
    found = rows(RayEngine(workers=2, timeout_s=1.5), ray_filters.Counting(), [given])
    assert {row.clip_id: row.error for row in found if row.error} == {given[2].id: "no result within 1.5 s"}
    assert len(found) == 5


def test_filter_that_workers_cannot_build_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_RAY_TEST_PROCESS", str(os.getpid()))
    with pytest.raises(WorkError, match=r"'ray_filters:Fragile' cannot be built .* No module named 'left_at_home'"):
        rows(RayEngine(workers=2), ray_filters.Fragile(), [clips(3)])


def test_warnings_of_workers_are_heard_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ray_filters"):
        rows(RayEngine(workers=2), ray_filters.Warning_(), [clips(8)])
    assert [r.getMessage() for r in caplog.records if r.name == "ray_filters"] == ["the model is not here"]


def test_filter_that_can_do_nothing_ends_the_run() -> None:
    with pytest.raises(WorkError, match=r"cannot work on a Ray worker: .*pip install a-model"):
        rows(RayEngine(workers=2), ray_filters.Counting(), [clips(6, c2="no model")])


def test_stage_with_a_gpu_has_a_pool_of_its_own() -> None:
    given = clips(21, c3="unreadable", c8="die")
    found = rows(RayEngine(workers=1, batch_size=3), ray_filters.Staged(gpus=1.0), [[clip] for clip in given])
    harmless = [clip for clip in given if clip.text != "die"]
    expected = {row.clip_id: row for row in ray_filters.Staged(gpus=1.0).score(harmless)}
    assert [row for row in found if row.clip_id in expected] == sorted(expected.values(), key=lambda row: row.clip_id)
    assert [row.error for row in found if row.clip_id == given[8].id] == [
        "worker killed by signal 9 (SIGKILL); out of memory?"
    ]


def test_pool_beside_a_gpu_grows(tmp_path: Path) -> None:
    # Pools on both sides of a GPU begin with one worker. Its first clip waits until another worker has begun.
    given = [Clip(f"clip{i}", str(tmp_path), text="wait for a second process") for i in range(8)]
    found = rows(RayEngine(workers=2, timeout_s=60.0), ray_filters.Roomy(gpus=1.0), [given])
    assert [row.error for row in found] == [None] * 8


@pytest.mark.parametrize("one_pack_at_a_time", [False, True])
def test_workers_do_not_wait_for_their_next_pack(monkeypatch: pytest.MonkeyPatch, one_pack_at_a_time: bool) -> None:
    # Ray Data hands packs out after it has looked at what has come. Now and then it is made to look away for a second:
    # what a worker begins in that second, after it has ended another pack in the same one, was waiting for it.
    looks_away = threading.Event()
    away: list[tuple[float, float]] = []
    wait = ray.wait

    def look(*args: Any, **options: Any) -> Any:
        ready, rest = wait(*args, **options)
        # With nothing new, whatever has come is handed out.
        if not ready and looks_away.is_set() and threading.current_thread().name.startswith("StreamingExecutor"):
            looks_away.clear()
            began = time.monotonic()
            time.sleep(1.0)
            away.append((began, time.monotonic()))
        return ready, rest

    monkeypatch.setattr(ray, "wait", look)
    if one_pack_at_a_time:
        strategy = ray.data.ActorPoolStrategy
        monkeypatch.setattr(
            ray.data,
            "ActorPoolStrategy",
            lambda **options: strategy(**{**options, "max_tasks_in_flight_per_actor": 1}),
        )
    spans: dict[int, list[list[float]]] = {}
    job = FilterJob.of(ray_filters.Timed())
    for number, (row,) in enumerate(RayEngine(workers=2, batch_size=1).run(job, [clips(32)])):
        spans.setdefault(row.pid, []).append(row.parts)
        if number % 4 == 3:
            looks_away.set()
    assert away, "this Ray Data looks in another way, which the test must hold up too"
    turns = [(before[1], after[0]) for found in spans.values() for before, after in pairwise(sorted(found))]
    waited = [turn for turn in turns if any(began < turn[0] and turn[1] < ended for began, ended in away)]
    # None at all if each pack is only sent for once the one before is done, however busy the machine is.
    assert bool(waited) is not one_pack_at_a_time


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(UnsupportedError, match=r"model \(2 a worker\) ask for 2 GPUs and this Ray has 1"):
        rows(RayEngine(), ray_filters.Staged(gpus=2.0), [clips(3)])


def test_too_few_clips_in_flight() -> None:
    with pytest.raises(ConfigError, match="max_in_flight is 3; the batches of the filter's stages need at least 8"):
        rows(RayEngine(max_in_flight=3), ray_filters.Staged(), [clips(3)])


def test_no_more_clips_are_read_than_may_be_in_flight() -> None:
    read = 0

    def groups() -> Iterator[list[Clip]]:
        nonlocal read
        for clip in clips(80):
            read += 1
            yield [clip]

    answer = RayEngine(workers=1, batch_size=2, max_in_flight=16).run(FilterJob.of(ray_filters.Counting()), groups())
    done = len(next(answer))
    assert read <= done + 16 + 4, "the packs in flight, and one that was cut but not sent"
    assert done + sum(map(len, answer)) == 80
    assert read == 80


def test_ray_that_was_running_stays() -> None:
    rows(RayEngine(), ray_filters.Counting(), [clips(2)])
    assert ray.is_initialized()
    context = ray.data.DataContext.get_current()
    assert context.target_max_block_size != 1
    assert context.max_errored_blocks != -1


def test_address_where_nobody_answers() -> None:
    ray.shutdown()
    with pytest.raises(PlanishError, match=r"cannot connect to Ray at '127\.0\.0\.1:1'"):
        rows(RayEngine(address="127.0.0.1:1"), ray_filters.Counting(), [clips(2)])
