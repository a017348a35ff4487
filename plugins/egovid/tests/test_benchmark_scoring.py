"""The benchmarks of scoring: they run, check what they time, and say what they could not measure."""

import sys
import textwrap
import time

import pytest
from planish.benchmark import BenchmarkOptions, collect, write_result
from planish.config import Config
from planish.errors import UnsupportedError, WorkError
from planish.filtering.local_engine import LocalEngine
from planish.interfaces import Clip, FilterEngine
from planish_egovid.benchmark import memory, memory_plot, scoring
from planish_egovid.benchmark.data_juicer import VARIABLE, DataJuicerMotion, data_juicer_python
from planish_egovid.benchmark.engine_rates import steady_run
from planish_egovid.benchmark.walk_clips import walk_clips
from planish_egovid.filters import Clarity
from planish_egovid.video import probe


def test_quick_run(monkeypatch):
    monkeypatch.setenv(VARIABLE, "/no/such/python")
    monkeypatch.setattr(scoring, "data_juicer_python", lambda: None)
    monkeypatch.setattr(scoring, "default_registry", lambda: _NoRay())
    result = scoring.bench(BenchmarkOptions("cpu", quick=True, command="planish bench egovid --quick"))
    assert result.oracle_passed
    cases = {row.case.split("/")[0]: row for row in result.rows}
    assert {*scoring.SETS, "motion", "2 processes, 6 clips"} <= set(cases)
    for row in result.rows:
        assert row.unit == "clips/s"
        assert row.ours.median > 0
    assert cases["all axes"].ours.median < cases["all axes"].floor
    assert any("Data-Juicer is not installed" in note for note in result.notes)
    assert any("Ray was not measured" in note for note in result.notes)


class _NoRay:
    def load(self, *_):
        from planish.errors import PluginError

        raise PluginError("filter engine 'ray' is not installed")


def test_a_gpu_is_refused():
    for program in (scoring, memory):
        with pytest.raises(UnsupportedError, match="--device cpu"):
            program.bench(BenchmarkOptions("cuda"))


def test_memory_curve(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "WORKERS", 1)
    monkeypatch.setattr(memory, "CLIPS", 40)
    monkeypatch.setattr(memory, "POINTS", 10)
    result = memory.bench(BenchmarkOptions("cpu", command="planish bench egovid-memory"))
    assert result.oracle_passed
    assert [row.case for row in result.rows] == ["parent after 40 clips", "largest worker after 40 clips"]
    for row in result.rows:
        assert row.extra["clips"][-1] == 40
        assert row.ours.median > 20
    result_file, figure = tmp_path / "result.json", tmp_path / "memory.svg"
    write_result(result, result_file)
    assert memory_plot.main([str(result_file), str(figure)]) == 0
    drawn = figure.read_text()
    assert "<!-- parent -->" in drawn
    assert "<!-- largest worker -->" in drawn
    write_result(collect("other", [], oracle_passed=True), result_file)
    assert memory_plot.main([str(result_file), str(tmp_path / "none.svg")]) != 0
    assert not (tmp_path / "none.svg").exists()


def test_no_two_clips_of_an_engine_share_a_file(tmp_path):
    clips = walk_clips(tmp_path, 2, width=64, height=48, frames=4)
    many = scoring.many_files(clips, 5)
    assert len({clip.path for clip in many}) == len({clip.id for clip in many}) == 5
    here = {row.clip_id: row.clarity_proxy for row in Clarity().score(many)}
    assert len(set(here.values())) == 2
    assert here["clip0000"] == here["clip0004"]


class _Packs(FilterEngine):
    """Gives rows in packs of two, the first after a while, and takes a while to end."""

    name = "packs"
    summary = "packs"
    Config = Config

    def run(self, job, clips):
        data_filter = job.build()
        given = [clip for group in clips for clip in group]
        time.sleep(0.2)
        for start in range(0, len(given), 2):
            time.sleep(0.05)
            yield [data_filter.Columns(clip_id=clip.id) for clip in given[start : start + 2]]
        time.sleep(0.3)


def test_engine_rates_leave_out_start_and_end():
    clips = [Clip(f"{number}", "/none") for number in range(12)]
    run = steady_run(_Packs(), Clarity(), clips, 3)
    assert [row.clip_id for row in run.rows] == [clip.id for clip in clips]
    # The fourth clip came with the third, at no cost: eight of twelve count, in four packs of 50 ms or little more.
    assert 20 < run.rate <= 2 / 0.05
    assert run.start_s >= 0.25
    assert run.end_s >= 0.3


def test_engine_rates_refuse_errors_and_too_few_clips(tmp_path):
    clips = walk_clips(tmp_path, 1, width=64, height=48, frames=4)
    assert probe(clips[0].path).width == 64
    with pytest.raises(WorkError, match="too few"):
        steady_run(LocalEngine(in_process=True), Clarity(), clips, 1)
    with pytest.raises(WorkError, match="too few"):
        steady_run(_Packs(), Clarity(), [Clip("a", "/none"), Clip("b", "/none")], 1)
    with pytest.raises(WorkError, match="could not be scored"):
        steady_run(LocalEngine(in_process=True), Clarity(), [*clips, Clip("x", "/no/such/file.mp4")], 1)


def test_a_peer_in_another_python_answers_and_ends(tmp_path, monkeypatch):
    package = tmp_path / "data_juicer"
    files = {
        "__init__.py": "",
        "ops/__init__.py": "",
        "ops/filter/__init__.py": "",
        "ops/filter/video_motion_score_filter.py": """
            class VideoMotionScoreFilter:
                def __init__(self, **options):
                    self.options = options
                def compute_stats_single(self, sample):
                    print("noise that must not reach the answers")
                    sample["stats"]["video_motion_score"] = [len(sample["videos"][0]) + self.options["size"]]
                    return sample
        """,
        "utils/__init__.py": "",
        "utils/constant.py": "class Fields:\n    stats = 'stats'\n    source_file = 'source'\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(textwrap.dedent(text))
    meta = tmp_path / "py_data_juicer-9.9.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: py-data-juicer\nVersion: 9.9\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(python))
    assert data_juicer_python() == str(python)
    with DataJuicerMotion(str(python), size=100) as peer:
        assert peer.version == "9.9"
        assert peer("abc.mp4") == 107
        process = peer._process
    assert process.returncode is not None
    with pytest.raises(RuntimeError, match="ended without an answer"):
        DataJuicerMotion("/bin/true")
