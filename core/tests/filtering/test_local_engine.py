"""The local engine gives the rows of the filter, whatever dies, hangs or shouts on the way."""

import logging
import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from planish.errors import DataError, UnsupportedError, WorkError
from planish.filtering.local_engine import LocalEngine, available_cores
from planish.filtering.scoring import score_group
from planish.interfaces import Clip, FilterJob
from ppm_filters import Pictures, Staged, Unbuildable


@pytest.fixture
def clips(pictures):
    return [Clip(path.stem, str(path)) for path in sorted(pictures.iterdir())]


def run(clips, *, kind=Pictures, size=4, workers=2, timeout_s=60.0, **options):
    """Return clip id -> row, having checked that every clip has exactly one."""
    groups = [clips[start : start + size] for start in range(0, len(clips), size)]
    engine = LocalEngine(workers=workers, timeout_s=timeout_s, **options)
    rows = [row for some in engine.run(FilterJob.of(kind()), groups) for row in some]
    assert sorted(row.clip_id for row in rows) == sorted(clip.id for clip in clips)
    assert not multiprocessing.active_children()
    return {row.clip_id: row for row in rows}


def with_text(clips, **texts):
    return [replace(clip, text=texts.get(f"c{clip.id}")) for clip in clips]


@pytest.mark.parametrize("kind", [Pictures, Staged])
def test_processes_give_the_rows_of_this_process_bit_for_bit(clips, kind):
    expected = {row.clip_id: row for row in kind().score(clips)}
    assert sum(row.error is not None for row in expected.values()) == 2
    assert run(clips, kind=kind, in_process=True) == expected
    assert run(clips, kind=kind, size=5) == expected
    assert run(clips[::-1], kind=kind, size=1) == expected
    assert run(clips, kind=kind, size=100, workers=1) == expected


def test_a_clip_that_kills_its_worker_costs_one_row(clips):
    expected = run(clips, in_process=True)
    found = run(with_text(clips, c01="die:SIGKILL", c05="die:SIGSEGV", c10="exit:3"))
    assert found["01"].error == "worker killed by signal 9 (SIGKILL); out of memory?"
    assert found["05"].error == "worker killed by signal 11 (SIGSEGV)"
    assert found["10"].error == "worker exited with code 3"
    healthy = expected.keys() - {"01", "05", "10"}
    assert {key: found[key] for key in healthy} == {key: expected[key] for key in healthy}


@pytest.mark.parametrize("size", [1, 4])
def test_a_clip_whose_worker_dies_once_is_scored_again(clips, tmp_path, size):
    expected = run(clips, in_process=True)
    assert run(with_text(clips, c02=f"die once:{tmp_path / 'died'}"), size=size) == expected
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("in_process", [True, False])
def test_a_filter_that_cannot_work_at_all_ends_the_run(clips, in_process):
    # Every clip would fail for the same reason, each after its own attempt to load a model.
    with pytest.raises(UnsupportedError, match="pip install a-model"):
        run(with_text(clips, c02="no model"), in_process=in_process)
    assert not multiprocessing.active_children()


def test_a_clip_that_hangs_costs_one_row(clips):
    expected = run(clips, in_process=True)
    found = run(with_text(clips, c01="sleep:60"), size=3, timeout_s=1.5)
    assert found.pop("01").error == "no result within 1.5 s"
    expected.pop("01")
    assert found == expected


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_what_a_hanging_worker_has_started_ends_with_it(clips, tmp_path):
    found = run(with_text(clips[:1], c00=f"start:{tmp_path / 'child'}"), timeout_s=0.5)
    assert found["00"].error == "no result within 0.5 s"
    stat = Path("/proc", (tmp_path / "child").read_text(), "stat")
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_group_has_time_for_all_of_its_clips(clips):
    found = run(with_text(clips[:3], c00="sleep:0.5", c01="sleep:0.5", c02="sleep:0.5"), size=3, timeout_s=0.9)
    assert [found[key].error for key in ("00", "01", "02")] == [None, None, None]


@pytest.mark.parametrize("in_process", [True, False])
def test_a_filter_that_raises_gives_an_error_row(clips, in_process):
    found = run(with_text(clips, c04="raise:at  frame\n7"), in_process=in_process)
    assert found["04"].error == "RuntimeError: at frame 7"
    assert [key for key, row in sorted(found.items()) if row.error] == ["03", "04", "07"]


class TooFew(Pictures):
    def score(self, clips):
        return super().score(clips)[:-1]


class Swapped(Pictures):
    def score(self, clips):
        return super().score(clips)[::-1]


def test_a_filter_that_returns_other_rows_gets_error_rows(clips):
    found = score_group(TooFew(), clips[:2])
    assert [row.error for row in found] == ["RuntimeError: pictures returned 0 rows for 1 clips"] * 2
    assert score_group(Swapped(), clips[:2]) == Pictures().score(clips[:2])  # right when asked one by one


def test_what_libraries_print_does_not_reach_the_terminal(clips, capfd):
    run(with_text(clips, c00="print:", c01="print:"))
    assert capfd.readouterr() == ("", "")


def test_warnings_reach_the_parent_once(clips, caplog):
    with caplog.at_level(logging.WARNING):
        run(with_text(clips, c00="warn:clarity", c05="warn:clarity", c09="warn:text"))
    said = [record.getMessage() for record in caplog.records if record.name == "pictures"]
    assert sorted(said) == ["no model; clarity is null", "no model; text is null"]


def test_groups_are_read_as_workers_become_free(clips):
    read = 0

    def groups():
        nonlocal read
        for clip in clips:
            read += 1
            yield [clip]

    done = 0
    for rows in LocalEngine(workers=2).run(FilterJob.of(Pictures()), groups()):
        done += len(rows)
        assert read <= done + 3
    assert done == len(clips)


def test_a_run_that_is_left_in_the_middle_leaves_no_process(clips):
    results = LocalEngine(workers=2).run(FilterJob.of(Pictures()), [[clip] for clip in clips])
    next(results)
    assert multiprocessing.active_children()
    results.close()
    assert not multiprocessing.active_children()


def test_threads_of_libraries_are_limited_in_workers_alone(clips, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = run(with_text(clips[:1], c00="environment:OMP_NUM_THREADS"), threads=3)
    assert found["00"].error == "RuntimeError: 3"
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_filter_that_cannot_be_built_says_why(clips, monkeypatch):
    job = FilterJob(f"{Unbuildable.__module__}:Unbuildable", {})
    with pytest.raises(DataError, match=r"weights\.bin is missing; fetch it"):
        list(LocalEngine(workers=1).run(job, [clips]))
    monkeypatch.setenv("UNBUILDABLE_PARENT", str(os.getpid()))
    with pytest.raises(DataError, match=r"weights\.bin is missing; fetch it"):
        list(LocalEngine(workers=1).run(job, [clips]))
    assert not multiprocessing.active_children()


def test_workers_that_die_while_they_start_end_the_run(clips, monkeypatch):
    monkeypatch.setenv("DIE_AT_START", str(os.getpid()))
    with pytest.raises(
        WorkError, match=r"workers die while they start \(worker exited with code 5\); .*: no such driver"
    ):
        run(clips, workers=1)
    assert not multiprocessing.active_children()


def test_workers_that_cannot_be_started_are_one_clear_error(clips, monkeypatch):
    def refuse(self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", refuse)
    with pytest.raises(WorkError, match="cannot start a worker: Resource temporarily unavailable; take fewer workers"):
        run(clips)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **keywords: refuse(None))
    with pytest.raises(WorkError, match="cannot write to the temporary folder"):
        run(clips)


def test_cores_respect_affinity_and_quota(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("planish.filtering.local_engine.Path", lambda path: quota)
    assert available_cores() == 8
    quota.write_text("max 100000\n")
    assert available_cores() == 8
    quota.write_text("350000 100000\n")
    assert available_cores() == 3
    quota.write_text("50000 100000\n")
    assert available_cores() == 1
