"""Clips are found in files, folders and manifests, and mistakes are named with their row."""

import json
import logging
import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planish.errors import DataError
from planish.filtering.manifest import find_clips
from planish.interfaces import Clip
from ppm_filters import Pictures, write_ppm

FILTER = Pictures()


def found(*paths, **keywords):
    return find_clips(paths, FILTER, **keywords).clips


def names(clips):
    return [os.path.basename(clip.path) for clip in clips]


@pytest.fixture
def folder(tmp_path):
    for name in ("b.ppm", "a.PPM", "sub/c.ppm", "sub/deeper/d.ppm", ".hidden.ppm", ".trash/e.ppm", "note.txt"):
        write_ppm(tmp_path / "media" / name, 1)
    return tmp_path / "media"


# ---- files and folders


def test_a_folder_is_searched_for_the_filters_suffixes(folder):
    clips = found(folder)
    assert names(clips) == ["a.PPM", "b.ppm", "c.ppm", "d.ppm"]
    assert all(os.path.isabs(clip.path) for clip in clips)
    assert [clip.id for clip in clips] == [clip.path for clip in clips]


def test_paths_do_not_depend_on_how_the_folder_is_named(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert found("media") == found(folder) == found("./media/../media/")


def test_links_that_lead_in_a_circle_are_followed_once(folder):
    (folder / "sub" / "back").symlink_to(folder)
    (folder / "self").symlink_to("self")
    assert names(found(folder)) == ["a.PPM", "b.ppm", "c.ppm", "d.ppm"]


def test_a_broken_link_is_a_clip_whose_row_will_say_so(folder):
    (folder / "gone.ppm").symlink_to(folder / "nowhere.ppm")
    assert "gone.ppm" in names(found(folder))


def test_a_file_that_is_given_twice_counts_once(folder):
    assert names(found(folder / "b.ppm", folder, folder / "a.PPM")) == ["b.ppm", "a.PPM", "c.ppm", "d.ppm"]


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tmp_path):
    assert names(found(write_ppm(tmp_path / "picture.raw", 0))) == ["picture.raw"]


def test_the_filter_cuts_files_into_clips(tmp_path):
    write_ppm(tmp_path / "pair.ppm", 1)
    assert [(clip.id, clip.start_s, clip.end_s) for clip in found(tmp_path)] == [("pair_0", 0, 1), ("pair_1", 1, 2)]


def test_a_file_that_cannot_be_cut_is_one_clip(tmp_path):
    path = write_ppm(tmp_path / "uncuttable.ppm", 1)
    assert found(tmp_path) == [Clip(str(path), str(path))]


def test_ids_from_two_files_must_differ(tmp_path):
    write_ppm(tmp_path / "one" / "pair.ppm", 1)
    write_ppm(tmp_path / "two" / "pair.ppm", 1)
    with pytest.raises(DataError, match=r"id 'pair_0' occurs twice: .*one/pair\.ppm and .*two/pair\.ppm; .* manifest"):
        found(tmp_path)


def test_a_limit_takes_the_first_clips(folder):
    assert names(found(folder, limit=2)) == ["a.PPM", "b.ppm"]


def test_nothing_found_names_the_suffixes(tmp_path):
    with pytest.raises(
        DataError, match=r"no clips in .*: pictures reads \.ppm, and manifests \.csv, \.jsonl, \.parquet"
    ):
        found(tmp_path)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.ppm does not exist"):
        found(tmp_path / "nowhere.ppm")


def test_a_folder_that_cannot_be_read_is_reported_and_the_rest_is_found(folder, monkeypatch, caplog):
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with caplog.at_level(logging.WARNING):
        manifest = find_clips([folder], FILTER)
    assert names(manifest.clips) == ["a.PPM", "b.ppm"]
    assert manifest.unreadable == [f"{folder / 'sub'} (Permission denied)"]
    assert "cannot look into" in caplog.text


# ---- manifests


def manifest(tmp_path, text, name="clips.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_all_columns_of_a_csv(tmp_path):
    path = manifest(
        tmp_path,
        "\ufeffid,path,start_s,end_s,text,extra.imu_path,extra.hand,extra.pose,extra.free\n"
        'a,v/a.ppm,1.5,3,"cut, then stir",imu/a.csv,left,./pose.npy,\n'
        "\n"
        "b,/v/b.ppm,,,nan,,right,../p.npy,./\n"
        "c,s3://bucket/c.ppm,0,,  ,s3://bucket/c.csv,,,x/y\n",
    )
    here = str(tmp_path)
    assert found(path) == [
        Clip(
            "a",
            f"{here}/v/a.ppm",
            1.5,
            3.0,
            "cut, then stir",
            {"imu_path": f"{here}/imu/a.csv", "hand": "left", "pose": f"{here}/pose.npy", "free": None},
        ),
        Clip(
            "b",
            "/v/b.ppm",
            extra={"imu_path": None, "hand": "right", "pose": f"{os.path.dirname(here)}/p.npy", "free": here},
        ),
        Clip(
            "c",
            "s3://bucket/c.ppm",
            extra={"imu_path": "s3://bucket/c.csv", "hand": None, "pose": None, "free": "x/y"},
        ),
    ]


def test_a_clip_without_an_id_is_called_by_path_and_range(tmp_path):
    path = manifest(tmp_path, "path,start_s,end_s\na.ppm,,\na.ppm,1,2.5\na.ppm,3,\n")
    assert [clip.id.removeprefix(f"{tmp_path}/") for clip in found(path)] == ["a.ppm", "a.ppm#1-2.5", "a.ppm#3-"]


def test_json_lines_and_parquet_say_the_same_as_csv(tmp_path):
    rows = [
        {
            "id": "a",
            "path": "a.ppm",
            "start_s": 1.0,
            "end_s": 2.0,
            "text": "stir",
            "extra": {"n": 1, "x_path": "i.csv"},
        },
        {
            "id": "b",
            "path": "b.ppm",
            "start_s": None,
            "end_s": None,
            "text": None,
            "extra": {"n": None, "x_path": None},
        },
    ]
    lines = manifest(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "clips.jsonl")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "clips.parquet")
    expected = [
        Clip("a", f"{tmp_path}/a.ppm", 1.0, 2.0, "stir", {"n": 1, "x_path": f"{tmp_path}/i.csv"}),
        Clip("b", f"{tmp_path}/b.ppm", extra={"n": None, "x_path": None}),
    ]
    assert found(lines) == expected
    assert found(tmp_path / "clips.parquet") == expected


def test_what_data_frames_write_for_null_is_null(tmp_path):
    nothing = float("nan")
    table = pa.table({"id": [1, 2], "path": ["a.ppm", "b.ppm"], "end_s": [nothing, 2.0], "extra.x": [nothing, 1.0]})
    pq.write_table(table.append_column("text", pa.array([nothing, nothing])), tmp_path / "clips.parquet")
    one, two = found(tmp_path / "clips.parquet")
    assert (one.id, one.end_s, one.text, one.extra) == ("1", None, None, {"x": None})
    assert (two.id, two.end_s, two.text, two.extra) == ("2", 2.0, None, {"x": 1.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "clips.csv, header: no column 'path'"),
        ("id,start\na,1\n", "clips.csv, header: unknown column 'start'; did you mean 'start_s'?"),
        ("path,mood\na,1\n", "unknown column 'mood'; columns of your own are named extra.mood"),
        ("path,path\na,b\n", "column 'path' occurs twice"),
        ("id,path\na,x.ppm\nb,\n", "clips.csv, row 2: path is empty"),
        ("path,start_s\nx.ppm,early\n", "row 1: start_s is 'early'; expected seconds, 0 or more"),
        ("path,start_s\nx.ppm,-1\n", "row 1: start_s is '-1'; expected seconds, 0 or more"),
        ("path,end_s\nx.ppm,inf\n", "row 1: end_s is 'inf'; expected seconds, 0 or more"),
        ("path,start_s,end_s\nx.ppm,0,1\nx.ppm,5,5\n", "row 2: end_s 5 is not after start_s 5"),
        ("path,text\nx.ppm,cut, then stir\n", "row 1: 3 values for 2 columns; quote values with commas"),
        ('path,text\nx.ppm,"never closed\n', "clips.csv, line 2: unexpected end of data"),
        (
            "id,path\na,x.ppm\nb,y.ppm\na,z.ppm\n",
            "the id 'a' occurs twice: PATH, row 1 and PATH, row 3; give the clips ids",
        ),
    ],
)
def test_mistakes_in_a_csv_are_named_with_their_row(tmp_path, text, message):
    path = manifest(tmp_path, text)
    with pytest.raises(DataError, match=re.escape(message.replace("PATH", str(path)))):
        found(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "x.ppm"}\n{"path": \n', "clips.jsonl, row 2: no JSON"),
        ('["x.ppm"]\n', "row 1: expected an object, found ['x.ppm']"),
        ('{"path": "x.ppm"}\n{"file": "x.ppm"}\n', "row 2: unknown column 'file'"),
        ('{"path": 3}\n', "row 1: path is 3; expected text"),
        ('{"path": "x", "end_s": true}\n', "row 1: end_s is True; expected seconds"),
        ('{"path": "x", "extra": 3}\n', "row 1: extra is 3; expected an object"),
    ],
)
def test_mistakes_in_json_lines_are_named_with_their_row(tmp_path, text, message):
    with pytest.raises(DataError, match=re.escape(message)):
        found(manifest(tmp_path, text, "clips.jsonl"))


def test_manifests_that_cannot_be_read(tmp_path):
    (tmp_path / "bytes.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"bytes\.csv is not UTF-8 text"):
        found(tmp_path / "bytes.csv")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"no\.parquet is no readable Parquet file"):
        found(tmp_path / "no.parquet")
    with pytest.raises(DataError, match=r"a manifest is \.csv, \.jsonl, \.parquet, and \.json is no media file"):
        found(manifest(tmp_path, "[]", "clips.json"))
