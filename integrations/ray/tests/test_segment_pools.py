"""Which stages share a pool, and how large pools are."""

from __future__ import annotations

import pytest
from planish.errors import UnsupportedError
from planish.interfaces.data_filter import Stage
from planish_ray.segment import fit, segments_of


def stage(name: str, cpus: float = 1.0, gpus: float = 0.0, batch_size: int = 16) -> Stage:
    return Stage(name, lambda works: works, cpus, gpus, batch_size)


def test_neighbours_without_a_gpu_share_a_pool() -> None:
    stages = [
        stage("decode"),
        stage("flow", 2.0, batch_size=4),
        stage("clip", gpus=1.0),
        stage("raft", gpus=0.5),
        stage("end"),
    ]
    found = segments_of(stages)
    assert [(s.name, s.stages, s.cpus, s.gpus, s.batch_size) for s in found] == [
        ("decode+flow", (0, 1), 2.0, 0.0, 16),
        ("clip", (2,), 1.0, 1.0, 16),
        ("raft", (3,), 1.0, 0.5, 16),
        ("end", (4,), 1.0, 0.0, 16),
    ]


def test_single_pool_takes_all_cores() -> None:
    (found,) = fit(segments_of([stage("score")]), cpus=8, gpus=0, workers=None)
    assert (found.workers, found.cpus, found.is_fixed) == (8, 1.0, True)
    (found,) = fit(segments_of([stage("score", cpus=3.0)]), cpus=8, gpus=0, workers=None)
    assert (found.workers, found.cpus) == (2, 3.0)


def test_reservations_never_exceed_the_cores() -> None:
    (found,) = fit(segments_of([stage("score")]), cpus=2, gpus=0, workers=8)
    assert (found.workers, found.cpus) == (8, 0.25)
    (found,) = fit(segments_of([stage("score", cpus=4.0)]), cpus=7, gpus=0, workers=3)
    assert found.cpus == 2.0, "above one, Ray takes whole cores only"


def test_gpus_set_the_number_of_their_workers() -> None:
    found = fit(segments_of([stage("a"), stage("b", gpus=1.0), stage("c")]), cpus=16, gpus=4, workers=None)
    assert [(s.name, s.workers, s.is_fixed) for s in found] == [("a", 12, False), ("b", 4, True), ("c", 12, False)]
    shared = fit(segments_of([stage("a"), stage("b", gpus=0.5)]), cpus=16, gpus=2, workers=6)
    assert [(s.workers, s.is_fixed) for s in shared] == [(6, True), (4, True)]


def test_one_worker_of_each_pool_fits_a_small_machine() -> None:
    stages = [stage("a", 2.0), stage("b", 1.0, gpus=1.0), stage("c", 2.0)]
    found = fit(segments_of(stages), cpus=2, gpus=1, workers=None)
    assert sum(s.cpus for s in found) <= 2


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(
        UnsupportedError, match=r"clip \(1 a worker\), raft \(1 a worker\) ask for 2 GPUs and this Ray has 1"
    ):
        fit(segments_of([stage("clip", gpus=1.0), stage("raft", gpus=1.0)]), cpus=2, gpus=1, workers=None)
