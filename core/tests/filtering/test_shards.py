"""Shards appear as a whole, and every row is there exactly once whenever a run dies."""

import errno
import logging
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import planish.atomic
import planish.filtering.shards as module
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planish.errors import DataError, WorkError
from planish.filtering.row_schema import row_schema, to_table
from planish.filtering.shards import ShardFolder
from ppm_filters import Columns

SCHEMA = row_schema(Columns)


def table(first, count, *, fingerprint="clip", start=0):
    rows = [Columns(clip_id=f"clip{n}", side=first + n) for n in range(start, start + count)]
    beside = [
        {
            "sequence": first + n,
            "fingerprint": f"{fingerprint}{n}",
            "source_size": 1,
            "source_mtime_ns": 2,
            "source_sha256": None,
            "scored_at": datetime.now(UTC),
            "filter": "pictures",
            "metric_version": 1,
            "params_hash": "h",
            "distribution_version": "1",
        }
        for n in range(start, start + count)
    ]
    return to_table(rows, beside, SCHEMA)


@pytest.fixture
def shards(tmp_path):
    return ShardFolder(tmp_path / "scores", SCHEMA)


def sides(shards):
    found = shards.read()
    return dict(zip(found["clip_id"].to_pylist(), found["side"].to_pylist(), strict=True))


def test_the_latest_row_of_a_fingerprint_holds(shards):
    shards.append(table(0, 3))
    shards.append(table(100, 1, start=1))
    assert sides(shards) == {"clip0": 0, "clip2": 2, "clip1": 101}
    assert shards.read().num_rows == 3


def test_a_folder_that_is_not_there_is_empty(shards):
    assert shards.shards() == []
    assert shards.read().num_rows == 0
    assert shards.read().schema.names == SCHEMA.names


def test_compaction_keeps_the_latest_rows_in_one_shard(shards):
    for n in range(5):
        shards.append(table(10 * n, 2, start=n))
    before = sides(shards)
    shards.compact()
    assert sides(shards) == before
    assert [path.name for path in shards.path.iterdir()] == ["part-000005.parquet"]
    shards.append(table(1000, 1))
    assert sides(shards) == before | {"clip0": 1000}
    shards.compact()
    assert sides(shards) == before | {"clip0": 1000}


def test_large_shards_are_left_alone(shards, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 4)
    shards.append(table(0, 5))
    shards.append(table(10, 2, start=5))
    shards.append(table(20, 2, start=7))
    shards.append(table(30, 2, start=9))
    before = sides(shards)
    shards.compact()
    assert sorted(path.name for path in shards.path.iterdir()) == [
        "part-000000.parquet",
        "part-000003.parquet",
        "part-000004.parquet",
    ]
    assert sides(shards) == before


def test_an_old_row_in_a_later_shard_does_not_win(shards, monkeypatch):
    shards.append(table(0, 1))
    shards.append(table(1, 1, start=1))
    shards.append(table(2, 1, start=2))
    old = shards.shards()[:2]
    shards.append(table(50, 1))
    shards._join(old)  # written last, and yet older than the row of clip0 before it
    assert sides(shards)["clip0"] == 50


class Died(BaseException):
    pass


class Mortal:
    """Lets a process die at its n-th step on disk: from then on nothing of it happens, tidying up included."""

    def __init__(self, monkeypatch, at):
        self.at, self.steps = at, 0
        for owner, name in ((planish.atomic.tempfile, "mkstemp"), (Path, "replace"), (Path, "unlink"), (Path, "chmod")):
            monkeypatch.setattr(owner, name, self.mortal(getattr(owner, name)))
        monkeypatch.setattr(pq, "write_table", self.half(pq.write_table))

    def step(self):
        self.steps += 1
        if self.steps >= self.at:
            raise Died

    def mortal(self, function):
        def step(*arguments, **keywords):
            self.step()
            return function(*arguments, **keywords)

        return step

    def half(self, function):
        def step(rows, path, **keywords):
            function(rows, path, **keywords)
            try:
                self.step()
            except Died:
                os.truncate(path, os.path.getsize(path) // 2)
                raise

        return step


def fill(folder):
    shards = ShardFolder(folder, SCHEMA)
    for n in range(3):
        shards.append(table(10 * n, 3, start=n))
    return sides(shards)


def test_death_at_any_moment_of_compaction_loses_and_doubles_nothing(tmp_path):
    before = fill(tmp_path / "whole")
    at, deaths, seen = 1, 0, set()
    while True:
        folder = tmp_path / f"at{at}"
        shutil.copytree(tmp_path / "whole", folder)
        with pytest.MonkeyPatch.context() as patch:
            mortal = Mortal(patch, at)
            try:
                ShardFolder(folder, SCHEMA).compact()
            except Died:
                deaths += 1
        seen.add(tuple(sorted(path.name[:5] for path in folder.iterdir())))
        survivor = ShardFolder(folder, SCHEMA)
        assert sides(survivor) == before  # for a reader
        assert survivor.read().num_rows == len(before)
        assert survivor.clean() == []  # for the next run
        assert not list(folder.glob(".*"))
        survivor.append(table(500, 1))
        assert sides(survivor) == before | {"clip0": 500}
        survivor.compact()
        assert sides(survivor) == before | {"clip0": 500}
        assert len(list(folder.iterdir())) == 1
        if mortal.steps < at:
            break
        at += 1
    assert deaths >= 7  # temporary file, writing, mode, renaming, and removing three shards
    assert len(seen) >= 5


def test_death_while_writing_leaves_what_was_there(tmp_path):
    before = fill(tmp_path / "scores")
    for at in (1, 2, 3, 4):
        with pytest.MonkeyPatch.context() as patch:
            Mortal(patch, at)
            with pytest.raises(Died):
                ShardFolder(tmp_path / "scores", SCHEMA).append(table(100, 3))
        assert sides(ShardFolder(tmp_path / "scores", SCHEMA)) == before
    shards = ShardFolder(tmp_path / "scores", SCHEMA)
    assert list(shards.path.glob(".part-*"))
    shards.clean()
    assert not list(shards.path.glob(".part-*"))
    assert sides(shards) == before


@pytest.mark.parametrize("damage", ["cut", "empty", "page"])
def test_a_damaged_shard_is_named_by_readers_and_set_aside_by_writers(shards, damage, caplog):
    fill(shards.path)
    path = shards.path / "part-000001.parquet"
    data = bytearray(path.read_bytes())
    if damage == "page":
        data[4:60] = bytes(56)
    path.write_bytes(b"" if damage == "empty" else bytes(data[: len(data) // 2]) if damage == "cut" else bytes(data))
    with pytest.raises(DataError, match=r"part-000001\.parquet is damaged .*run 'planish filter' again"):
        shards.read()
    with caplog.at_level(logging.WARNING):
        assert [aside.name for aside in shards.clean()] == ["part-000001.parquet.damaged"]
    assert "its clips are scored again" in caplog.text
    assert sides(shards) == {"clip0": 0, "clip1": 1, "clip2": 22, "clip3": 23, "clip4": 24}
    assert shards.append(table(100, 1)).path.name == "part-000003.parquet"


def test_other_columns_ask_for_a_new_metric_version(shards):
    shards.append(table(0, 1).drop_columns(["side"]))
    with pytest.raises(DataError, match=r"other columns \(side\).*metric_version"):
        shards.read()


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_file(shards, monkeypatch):
    shards.append(table(0, 2))

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(WorkError, match=r"cannot write .*part-000001\.parquet: No space left on device"):
        shards.append(table(2, 2))
    assert [path.name for path in shards.path.iterdir()] == ["part-000000.parquet"]


def test_reading_survives_a_compaction_at_the_same_time(shards, monkeypatch):
    before = fill(shards.path)
    found = shards.shards
    calls = []

    def listing():
        listed = found()
        if not calls:
            calls.append(1)
            ShardFolder(shards.path, SCHEMA).compact()
        return listed

    monkeypatch.setattr(shards, "shards", listing)
    assert sides(shards) == before


def test_rows_are_readable_by_anything_that_reads_parquet(shards):
    shards.append(table(0, 2))
    found = pq.read_table(shards.path)
    assert found.schema.metadata[b"planish.schema_version"] == b"1"
    assert found.schema.field("channels").type == pa.list_(pa.float64())
    assert found["metric_version"].to_pylist() == [1, 1]


def test_rows_that_were_written_twice_count_once(shards):
    shards.append(table(0, 3))
    shards.append(table(0, 3))
    assert shards.read().num_rows == 3
    shards.compact()
    assert [shard.rows for shard in shards.shards()] == [3]
