"""``planish egovid``: every verb, and what it says to wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planish.cli.app import main
from planish.filtering.manifest import find_clips
from planish_egovid.clips import read_egovid_csv
from planish_egovid.filters import EgoVid
from planish_egovid.video import probe


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "room"
    assert main(["egovid", "room", str(folder), "--frames", "40", "--width", "96"]) == 0
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """Run a verb with --json and return what it prints."""
    capsys.readouterr()
    assert main(["egovid", *map(str, arguments), "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a verb that must refuse its input, and return its message."""
    capsys.readouterr()
    assert main(["egovid", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_help_teaches_by_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["egovid"]) == 0
    listed = capsys.readouterr().out
    for verb in ("segment", "check", "split", "caption", "poses", "import-csv", "export-csv", "estimate", "room"):
        assert verb in listed
        assert main(["egovid", verb, "--help"]) == 0
        assert f"planish egovid {verb}" in " ".join(capsys.readouterr().out.split())


def test_room_can_be_read_and_is_the_same_every_time(room: Path, tmp_path: Path) -> None:
    clips = find_clips([room / "clips.csv"], EgoVid()).clips
    assert [clip.id for clip in clips] == ["walk0", "still0", "spin0", "cut0"]
    assert all(Path(clip.extra["imu"]).is_file() for clip in clips)
    assert {probe(clip.path).frames for clip in clips} == {40}
    assert main(["egovid", "room", str(tmp_path / "again"), "--frames", "40", "--width", "96", "--clips", "1"]) == 0
    for name in ("walk0.mp4", "walk0-imu.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (room / name).read_bytes()


def test_room_shows_what_its_names_say(tmp_path: Path) -> None:
    folder = tmp_path / "room"
    assert main(["egovid", "room", str(folder), "--width", "160"]) == 0
    data_filter = EgoVid(axes=("motion", "consistency"))
    rows = data_filter.score(find_clips([folder / "clips.csv"], data_filter).clips)
    decisions = {row.clip_id: data_filter.decide(row) for row in rows}
    assert {name: decision.rules[:1] for name, decision in decisions.items()} == {
        "walk0": (), "still0": ("flow_mean",), "spin0": ("flow_mean",), "cut0": ("cut_score",),
    }  # fmt: skip


def test_segment_windows(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clips.parquet"
    found = said(capsys, "segment", room, "--method", "windows", "--set", "length_s=0.5", "--out", out)
    assert (found["videos"], found["clips"], found["unreadable"]) == (4, 8, {})
    clips = find_clips([out], EgoVid()).clips
    assert clips[0].id == "cut0_0_15"
    assert (clips[1].start_s, clips[1].end_s) == (0.5, 1.0)


def test_segment_narrations(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clips.jsonl"
    options = ("--method", "narrations", "--narrations", room / "said.csv", "--set", "min_frames=10")
    found = said(capsys, "segment", room, *options, "--out", out)
    assert found["mean_gap_s"] == pytest.approx(1 / 3, abs=1e-5)
    assert found["clips"] == 8
    clips = {clip.id: clip for clip in find_clips([out], EgoVid()).clips}
    # A gap of a third of a second everywhere: each clip is ± half a second around its narration, moved inside.
    assert clips["walk0_0_30"].text == "walks through a room"
    assert clips["walk0_5_35"].text == "looks on"


def test_segment_scenes_and_whole(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "segment", room, "--method", "scenes", "--set", "min_frames=15", "--out", tmp_path / "s.csv")
    assert found["clips"] == 5
    whole = said(capsys, "segment", room / "walk0.mp4", "--out", tmp_path / "w.csv")
    assert (whole["clips"], whole["seconds"]) == (1, 0)


def test_file_that_cannot_be_cut_is_listed_whole(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    out = tmp_path / "clips.csv"
    found = said(capsys, "segment", room / "walk0.mp4", bad, "--method", "windows", "--set", "length_s=1", "--out", out)
    assert list(found["unreadable"]) == [str(bad)]
    assert {clip.id for clip in find_clips([out], EgoVid()).clips} == {str(bad), "walk0_0_30"}


def test_segment_refuses(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "clips.csv"
    assert "go together" in refused(capsys, "segment", room, "--method", "narrations", "--out", out)
    assert "min_frame: unknown field; did you mean 'min_frames'?" in refused(
        capsys, "segment", room, "--set", "min_frame=3", "--out", out
    )
    assert "a manifest is" in refused(capsys, "segment", room, "--out", tmp_path / "clips.txt")
    assert "none of 4 videos gave a clip" in refused(
        capsys, "segment", room, "--method", "windows", "--set", "length_s=60", "--out", out
    )
    wrong = tmp_path / "said.csv"
    wrong.write_text("video,time,text\nwalk0,1,a\n")
    assert "row 1: no column 'time_s'; did you mean 'time'?" in refused(
        capsys, "segment", room, "--method", "narrations", "--narrations", wrong, "--out", out
    )
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "walk0.mp4").write_bytes((room / "walk0.mp4").read_bytes())
    assert "two files are called 'walk0'" in refused(
        capsys, "segment", room, tmp_path / "two", "--method", "windows", "--out", out
    )
    assert not out.exists()


def test_check_says_what_is_wrong(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("video_id,frame_num,fps\nwalk0_0_40,40,30.0\nwalk0_9_3,40,30.0\ngone_0_40,40,30.0\n")
    found = said(capsys, "check", table, "--videos", room, code=1)
    assert found["counts"] == {"bad_id": 1, "missing_source": 1}
    assert main(["egovid", "check", str(table), "--videos", str(room)]) == 1
    assert "bad_id: row 2, walk0_9_3" in capsys.readouterr().out
    assert said(capsys, "check", room / "clips.csv", "--probe")["findings"] == []
    assert "is no list of clips" in refused(capsys, "check", room)
    assert "cannot read" in refused(capsys, "check", tmp_path / "none.csv")


def test_tables_go_through_scores_and_back(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored, table, again = tmp_path / "scored", tmp_path / "t.csv", tmp_path / "again.csv"
    options = ["--with", "egovid-motion", "--out", str(scored), "--no-report", "--engine-set", "in_process=true"]
    assert main(["filter", str(room / "clips.csv"), *options]) == 0
    assert said(capsys, "export-csv", scored, "--out", table)["rows"] == 4
    rows = list(read_egovid_csv(table))
    assert [row.values["video_id"] for row in rows] == ["walk0_0_40", "still0_0_40", "spin0_0_40", "cut0_0_40"]
    assert rows[0].values["name"] == "walks through a room"
    assert rows[0].values["flow_mean"] > 1 > rows[1].values["flow_mean"]

    done = said(capsys, "import-csv", table, "--videos", room, "--out", tmp_path / "clips.parquet")
    assert (done["clips"], done["missing_sources"]) == (4, [])

    released = tmp_path / "released"
    options = ["--with", "egovid-released", "--out", str(released), "--no-report", "--engine-set", "in_process=true"]
    assert main(["filter", str(table), *options]) == 0
    said(capsys, "export-csv", released, "--out", again)
    assert again.read_bytes() == table.read_bytes()
    kept = said(capsys, "export-csv", released, "--kept", "--out", tmp_path / "kept.csv")["rows"]
    assert 0 < kept < 4
    assert "is no .csv file" in refused(capsys, "export-csv", released, "--out", tmp_path / "kept.txt")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_split_of_manifests(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    clips = tmp_path / f"clips{suffix}"
    said(capsys, "segment", room, "--method", "windows", "--set", "length_s=0.3", "--out", clips)
    found = said(capsys, "split", clips, "--val-fraction", "0.5", "--seed", "2", "--out", tmp_path / "sets")
    parts = {name: find_clips([found[name]["file"]], EgoVid()).clips for name in ("train", "val")}
    assert {name: len(part) for name, part in parts.items()} == {name: found[name]["clips"] for name in parts}
    assert sum(map(len, parts.values())) == 16
    assert {c.path for c in parts["train"]} & {c.path for c in parts["val"]} == set()
    assert found["train"]["sources"] + found["val"]["sources"] == 4


def test_split_of_tables_and_runs(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("video_id,fps\n" + "".join(f"s{i % 9}_{i}_{i + 120},30.0\n" for i in range(60)))
    found = said(capsys, "split", table, "--val-fraction", "0.4", "--out", tmp_path / "sets")
    lines = [(tmp_path / "sets" / f"{name}.csv").read_text().splitlines()[1:] for name in ("train", "val")]
    assert sorted(lines[0] + lines[1]) == sorted(table.read_text().splitlines()[1:])
    assert [len(part) for part in lines] == [found["train"]["clips"], found["val"]["clips"]]
    sources = [{line.split("_")[0] for line in part} for part in lines]
    assert sources[0] & sources[1] == set()
    assert all(sources)
    assert "--kept needs the folder" in refused(capsys, "split", table, "--kept", "--out", tmp_path / "x")

    options = ["--with", "egovid-motion", "--out", str(tmp_path / "scored"), "--no-report"]
    assert main(["filter", str(room / "clips.csv"), *options, "--engine-set", "in_process=true"]) == 0
    every = said(capsys, "split", tmp_path / "scored", "--out", tmp_path / "all")
    kept = said(capsys, "split", tmp_path / "scored", "--kept", "--out", tmp_path / "kept")
    count = sum(every[name]["clips"] for name in ("train", "val"))
    assert count == 4
    assert 0 < sum(kept[name]["clips"] for name in ("train", "val")) < count


def test_poses_in_the_released_layout(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--set", "assume_fov_deg=90", "--workers", 1, "--limit", 1)
    found = said(capsys, "poses", room / "clips.csv", "--out", tmp_path, *options)
    assert found["errors"] == 0
    assert found["clips"][0]["clip_id"] == "walk0"
    folder = tmp_path / "poses" / "walk0"
    assert np.load(folder / "intri.npy").shape == (3, 3)
    assert np.load(folder / "imu_pose.npy").shape == (40, 4, 4)


def test_poses_of_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    found = said(capsys, "poses", tmp_path / "bad.mp4", "--out", tmp_path / "out", "--workers", 1, code=1)
    assert (found["errors"], found["exit_code"]) == (1, 1)
    assert "bad.mp4" in found["clips"][0]["error"]


def test_estimate_from_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "estimate", "--clips", 5_000_000, "--rate", 1.6, "--cores", 64)
    assert found["plans"][0]["hours"] == pytest.approx(5e6 / 1.6 / 3600 / 64)
    assert main(["egovid", "estimate", "--rate", "1.6", "--model", "clip=500", "--gpus", "1"]) == 0
    listed = capsys.readouterr().out
    assert "5,000,000 clips" in listed
    assert "4,167 GPU hours" in listed
    assert "no rate; give --rate" in refused(capsys, "estimate")
    assert "expected NAME=RATE" in refused(capsys, "estimate", "--rate", 1, "--model", "clip")
    assert "gpus is 0 and there are models" in refused(capsys, "estimate", "--rate", 1, "--model", "clip=5")
