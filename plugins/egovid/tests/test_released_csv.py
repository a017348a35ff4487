"""The released tables: read, written, imported, exported, decided on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planish.errors import ConfigError, DataError
from planish.filtering.manifest import find_clips
from planish.filtering.scoring import score_group
from planish.interfaces import Clip
from planish.testing import DataFilterContract
from planish_egovid.clips import ClipIdError, export_egovid_csv, import_egovid_csv, read_egovid_csv, write_egovid_csv
from planish_egovid.clips.released_csv import COLUMNS, IMU_COLUMNS, ReleasedRow, parsed, spelling
from planish_egovid.clips.released_exchange import released_row
from planish_egovid.clips.released_filter import ReleasedScores
from planish_egovid.filters import EgoVid

pd = pytest.importorskip("pandas")


def released(folder: Path, *, imu: bool = False) -> Path:
    """Write a table as the publishers did, with pandas: lists as their repr, missing values as empty cells."""
    table = {
        "video_id": ["5f2a-11_0_162.mp4", "5f2a-11_2730_2892.mp4", "77ab_x_90_210.mp4"],
        "frame_num": [162, 162, 120],
        "fps": [30.0, 29.97, 60.0],
        "noun_cls": ["cup_(cup, mug)", None, "knife"],
        "verb_cls": ["take", "put", None],
        "llava_cap": ['A person says "cup", then\nlifts it, slowly.', "Zwei Hände", "x" * 300],
        "name": ["takes the cup", "puts it down", None],
        "flow_mean": [6.128417, 0.30000000000000004, None],
        **{name: [0.1 + 0.2, 1e-7, 0.5] for name in ("flow_0_4", "flow_4_8", "flow_8_12", "flow_12_16", "flow_16_")},
        "ti_sim": [str([24.1, 25.0, 23.333333333333332, 1e-05]), str([20.0] * 4), None],
        "ii_sim": [str([91.5, 88.25, 80.0]), str([60.0, 91.0, 92.0]), str([71.0, 72.0, 73.0])],
        "dover_score": [0.61, 0.2, 0.44],
        "egovideo_score": [0.31, float("nan"), -0.02],
    }
    if imu:
        table |= {name: [str([0.1, -0.2, 3.0])] * 3 for name in IMU_COLUMNS}
    path = folder / "egovid.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("imu", [False, True])
def test_round_trip_gives_the_same_bytes(tmp_path: Path, imu: bool) -> None:
    source = released(tmp_path, imu=imu)
    table = read_egovid_csv(source)
    assert table.columns == ((*COLUMNS, *IMU_COLUMNS) if imu else COLUMNS)
    assert write_egovid_csv(tmp_path / "again.csv", table, table.columns) == 3
    assert (tmp_path / "again.csv").read_bytes() == source.read_bytes()


def test_values_have_types(tmp_path: Path) -> None:
    first, second, third = read_egovid_csv(released(tmp_path))
    assert first.values["frame_num"] == 162
    assert first.values["ti_sim"] == [24.1, 25.0, 23.333333333333332, 1e-05]
    assert first.values["llava_cap"] == 'A person says "cup", then\nlifts it, slowly.'
    assert (second.clip_id.source, second.clip_id.start, second.clip_id.end) == ("5f2a-11", 2730, 2892)
    assert second.values["noun_cls"] is None
    assert (third.values["flow_mean"], third.values["ti_sim"], third.values["name"]) == (None, None, None)


def test_odd_spellings_columns_and_line_ends_come_back(tmp_path: Path) -> None:
    text = (
        "extra,video_id,frame_num,fps,ti_sim,name\r\n"
        "7,a_0_120,120.0,30,\"['24.50', '1e1']\",nan\r\n"
        '"8, 9",b_0_120,120,29.970,[24.5 10.0],walks\r\n'
    )
    (tmp_path / "odd.csv").write_bytes(text.encode())
    table = read_egovid_csv(tmp_path / "odd.csv")
    rows = list(table)
    assert [row.values["ti_sim"] for row in rows] == [[24.5, 10.0]] * 2
    assert (rows[0].values["name"], rows[0].values["frame_num"]) == (None, 120)
    write_egovid_csv(tmp_path / "again.csv", rows, table.columns, table.line_end)
    assert (tmp_path / "again.csv").read_bytes() == text.encode()


def test_changed_value_loses_its_old_spelling() -> None:
    row = ReleasedRow(1, {"fps": 25.0}, {"fps": "29.970"})
    assert row.cell("fps") == "25.0"


@settings(max_examples=200)
@given(st.floats(allow_nan=False, allow_infinity=False), st.lists(st.floats(allow_nan=False), max_size=5))
def test_numbers_read_back_bit_by_bit(number: float, numbers: list[float]) -> None:
    assert math.copysign(1, parsed(spelling(number), "float")) == math.copysign(1, number)
    assert parsed(spelling(number), "float") == number
    assert parsed(spelling(numbers), "floats") == numbers


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("a_0_120,x,30,1", "row 1: frame_num is 'x'; expected a whole number"),
        ("a_0_120,1.5,30,1", "row 1: frame_num is '1.5'; expected a whole number"),
        ("a_0_120,120,fast,1", "row 1: fps is 'fast'; expected a number"),
        ("a_0_120,120,30,24.5", "row 1: ti_sim is '24.5'; expected a list of numbers"),
        ("a_0_120,120,30,[a]", "row 1: ti_sim is .* expected a list of numbers"),
        ("a_0_120,120,30", "row 1: 3 cells for 4 columns"),
        ('a_0_120,120,30,"[1', "unexpected end of data"),
    ],
)
def test_wrong_cells_are_named(tmp_path: Path, cells: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f"video_id,frame_num,fps,ti_sim\n{cells}\n")
    with pytest.raises(DataError, match=said):
        list(read_egovid_csv(path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("videoid,fps\n")
    with pytest.raises(DataError, match="no column 'video_id'; did you mean 'videoid'"):
        read_egovid_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(DataError, match="found nothing"):
        read_egovid_csv(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_bytes(b"video_id,name\na_0_9,\xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_egovid_csv(tmp_path / "c.csv"))
    with pytest.raises(DataError, match="cannot read"):
        read_egovid_csv(tmp_path / "none.csv")


# ---- to a manifest


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_import_gives_a_manifest_of_the_filter(tmp_path: Path, suffix: str) -> None:
    table = released(tmp_path, imu=True)
    (tmp_path / "5f2a-11.mp4").touch()
    done = import_egovid_csv(table, tmp_path / f"clips{suffix}")
    assert (done.clips, done.missing_sources) == (3, ("77ab_x",))
    clips = find_clips([tmp_path / f"clips{suffix}"], EgoVid()).clips
    assert [clip.id for clip in clips] == ["5f2a-11_0_162.mp4", "5f2a-11_2730_2892.mp4", "77ab_x_90_210.mp4"]
    assert (clips[0].path, clips[0].start_s, clips[0].end_s) == (str(tmp_path / "5f2a-11.mp4"), 0.0, 5.4)
    assert clips[1].start_s == pytest.approx(2730 * 1001 / 30000, abs=1e-9)
    assert clips[0].text == "takes the cup"
    assert clips[2].text is None
    assert clips[0].extra["verb_cls"] == "take"
    assert parsed(str(clips[0].extra["gyro_x"]), "floats") == [0.1, -0.2, 3.0]


def test_clip_that_is_cut_already_is_taken_whole(tmp_path: Path) -> None:
    table = released(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "5f2a-11_2730_2892.mp4").touch()
    done = import_egovid_csv(table, tmp_path / "clips.jsonl", tmp_path / "videos")
    assert done.missing_sources == ("5f2a-11", "77ab_x")
    second = json.loads((tmp_path / "clips.jsonl").read_text().splitlines()[1])
    assert second["path"] == str(tmp_path / "videos" / "5f2a-11_2730_2892.mp4")
    assert (second["start_s"], second.get("end_s")) == (0.0, None)


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        ("a_0_9,30\na_9_3,30", ClipIdError, "row 2: .*frames 9 to 3"),
        ("a_0_9,30\na_0_9.mp4,30", DataError, "row 2: clip 'a_0_9' stands in row 1 already"),
        ("a_0_9,0", DataError, "row 1: fps is 0.0"),
        ("a_0_9,", DataError, "row 1: fps is 0.0"),
    ],
)
def test_wrong_rows_end_the_import_and_leave_no_file(tmp_path: Path, rows: str, kind: type, said: str) -> None:
    (tmp_path / "a.csv").write_text(f"video_id,fps\n{rows}\n")
    with pytest.raises(kind, match=said):
        import_egovid_csv(tmp_path / "a.csv", tmp_path / "clips.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]


def test_manifest_needs_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clips\.txt: a manifest is a \.csv"):
        import_egovid_csv(released(tmp_path), tmp_path / "clips.txt")


# ---- as scores


def test_published_scores_are_rows_of_egovid(tmp_path: Path) -> None:
    table = released(tmp_path)
    data_filter = ReleasedScores()
    clips = find_clips([table], data_filter).clips
    rows = score_group(data_filter, clips[::-1])[::-1]
    assert [row.error for row in rows] == [None] * 3
    assert all(isinstance(row, EgoVid.Columns) for row in rows)
    assert (rows[0].flow_mean, rows[0].ii_sim, rows[0].dover_score) == (6.128417, [91.5, 88.25, 80.0], 0.61)
    assert (rows[0].fps, rows[0].frames_actual, rows[0].motion_backend) == (30.0, 162, "released")
    assert (rows[2].flow_mean, rows[2].motion_backend, rows[2].ti_sim) == (None, None, None)
    policy = EgoVid.Policy(**EgoVid.presets["egovid-3p"])
    decisions = [data_filter.decide(row, policy) for row in rows]
    assert [decision.keep for decision in decisions] == [True, False, True]
    assert "flow_mean" in decisions[1].rules


def test_clips_of_another_kind_and_changed_tables_get_errors(tmp_path: Path) -> None:
    table = released(tmp_path)
    data_filter = ReleasedScores()
    clips = data_filter.clips_of(table)
    write_egovid_csv(table, list(read_egovid_csv(table))[::-1])
    row, other = data_filter.score([clips[1], Clip("a", "a.mp4")])
    assert row.error is not None
    assert "give the .csv file itself" in other.error


class TestReleasedScores(DataFilterContract):
    plugin = ReleasedScores

    def make_clips(self, folder: Path) -> list[Clip]:
        clips = []
        for number in range(3):
            path = folder / f"table{number}.csv"
            path.write_text(f"video_id,frame_num,fps,flow_mean\nsource{number}_0_120,120,30.0,{number + 0.5}\n")
            clips += ReleasedScores().clips_of(path)
        return clips


# ---- from scores


def test_export_writes_what_was_scored(tmp_path: Path) -> None:
    from planish.filtering.decisions import decide_all
    from planish.filtering.run import score_clips

    table = released(tmp_path)
    data_filter = ReleasedScores()
    out = tmp_path / "scored"
    run_scores(score_clips, data_filter, table, out)
    assert export_egovid_csv(out, tmp_path / "export.csv", data_filter) == 3
    exported = list(read_egovid_csv(tmp_path / "export.csv"))
    for before, after in zip(read_egovid_csv(table), exported, strict=True):
        same = {name: before.values[name] for name in COLUMNS if name not in ("noun_cls", "verb_cls", "llava_cap")}
        assert {name: after.values[name] for name in same} == same
    from planish.filtering import ScoreStore

    decide_all(data_filter, ScoreStore.open(out), EgoVid.Policy(**EgoVid.presets["egovid-3p"]))
    assert export_egovid_csv(out, tmp_path / "kept.csv", data_filter, kept_only=True) == 2
    assert [row.values["video_id"] for row in read_egovid_csv(tmp_path / "kept.csv")] == [
        "5f2a-11_0_162.mp4", "77ab_x_90_210.mp4",
    ]  # fmt: skip


def run_scores(score_clips, data_filter, table: Path, out: Path) -> None:
    from planish.filtering.local_engine import LocalEngine

    score_clips(data_filter, find_clips([table], data_filter).clips, out, LocalEngine(in_process=True))


def test_ids_of_other_forms_are_made_from_frames() -> None:
    row = EgoVid.Columns(clip_id="x", fps=29.97, duration_s=4.004, frames_actual=120)
    made = released_row(1, Clip("x", "a/walk.mp4", start_s=4.004, text="walks", extra={"verb_cls": "walk"}), row)
    assert made.values["video_id"] == "walk_120_240"
    assert (made.values["verb_cls"], made.values["name"], made.values["frame_num"]) == ("walk", "walks", 120)
    with pytest.raises(DataError, match="give it an id SOURCE_START_END"):
        released_row(1, Clip("x", "a/walk.mp4"), EgoVid.Columns(clip_id="x", error="gone"))


def test_parquet_lists_stay_lists(tmp_path: Path) -> None:
    import_egovid_csv(released(tmp_path), tmp_path / "clips.parquet")
    assert pq.read_table(tmp_path / "clips.parquet")["extra.ti_sim"][0].as_py() == [
        24.1,
        25.0,
        23.333333333333332,
        1e-05,
    ]
