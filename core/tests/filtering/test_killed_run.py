"""A run that is killed or interrupted loses at most what it was about to write, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from planish.filtering import ScoreStore
from planish.filtering.local_engine import LocalEngine
from planish.filtering.manifest import find_clips
from planish.filtering.run import score_clips
from ppm_filters import Pictures, write_ppm

SHARD = 8
"""Rows of a shard in filter_process.py."""
CLIPS = 150


@pytest.fixture
def manifest(tmp_path):
    """Clips of which each leaves its worker's process id in a folder and takes a moment."""
    (tmp_path / "workers").mkdir()
    lines = ["id,path,text"]
    for n in range(CLIPS):
        path = write_ppm(tmp_path / "pictures" / f"{n:03d}.ppm", n)
        lines.append(f"{n:03d},{path},tell:{tmp_path / 'workers'}")
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def start(manifest, out):
    """Start a run and return it when it has written three shards."""
    arguments = ["filter", str(manifest), "--with", "pictures", "--out", str(out), "--workers", "2", "--no-report"]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("filter_process.py")), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(manifest.parent / "workers")},
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("scores/*/part-*.parquet"))) < 3:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_workers_end(manifest):
    workers = [int(path.name) for path in (manifest.parent / "workers").iterdir() if path.name.isdigit()]
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(lives(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not list((manifest.parent / "workers").glob("planish-*"))


def goes_on(manifest, out):
    """Score the rest in this process; return how many clips were scored before, and how many rows were kept of them."""
    clips = find_clips([manifest], Pictures()).clips
    stored = ScoreStore.open(out).table(["clip_id"]).num_rows
    summary = score_clips(Pictures(), clips, out, LocalEngine(in_process=True))
    assert summary.reused == stored
    assert summary.scored == CLIPS - stored
    table = ScoreStore.open(out).table()
    assert Counter(table["clip_id"].to_pylist()) == Counter(f"{n:03d}" for n in range(CLIPS))
    assert sum(shard.rows for shard in ScoreStore.open(out).shards.shards()) == CLIPS
    assert list(ScoreStore.open(out).rows(Pictures())) == Pictures().score(clips)
    return stored


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_kill_9_loses_no_row_and_doubles_none(manifest, out):
    process = start(manifest, out)
    process.kill()
    process.communicate()
    all_workers_end(manifest)
    assert ScoreStore.open(out).run.state == "running"
    files = sorted(out.glob("scores/*/part-*.parquet"))
    stored = goes_on(manifest, out)
    assert 3 * SHARD <= stored == len(files) * SHARD < CLIPS  # what was lost is less than a shard
    assert not list(out.glob("scores/*/.*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_keeps_every_row(manifest, out, number):
    process = start(manifest, out)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it
    else:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stderr.startswith("error: interrupted with ")
    assert stderr.count("\n") == 1
    all_workers_end(manifest)
    stored = int(stderr.split()[3])
    assert 3 * SHARD <= stored < CLIPS
    assert goes_on(manifest, out) == stored
