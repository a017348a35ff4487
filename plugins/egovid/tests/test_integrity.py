"""Checks of lists of clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.clips import check_clips, read_egovid_csv
from planish_egovid.clips.integrity import KINDS, check_released, counts
from planish_egovid.testing import write_video


def table(folder: Path, *rows: str) -> Path:
    path = folder / "t.csv"
    path.write_text("video_id,frame_num,fps,name\n" + "".join(f"{row}\n" for row in rows))
    return path


def test_everything_that_third_parties_looked_for_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    path = table(
        tmp_path,
        "a_0_120,120,30.0,ok",
        "a_9_9.mp4,120,30.0,no span",
        "a_120_240.mp4,120,30.0,ok",
        "a_0_120.mp4,120,30.0,again",
        "b_0_120,120,30.0,no file",
        "a_240_360,120,0,no rate",
        "a_240_360,120,nan,no rate either",
        "a_360_480,80,30.0,another length",
        "a_500_5000,4500,30.0,very long",
        "a_600_603,3,30.0,very short",
        "a_700_820,120,30.0",
        "kitchen,120,30.0,no id",
    )
    found = list(check_released(read_egovid_csv(path), tmp_path))
    assert [(f.kind, f.row) for f in found] == [
        ("bad_id", 2), ("duplicate_id", 4), ("missing_source", 5), ("bad_fps", 6), ("duplicate_id", 7), ("bad_fps", 7),
        ("frame_num", 8), ("bad_row", 11), ("bad_id", 12), ("duration", 9), ("duration", 10),
    ]  # fmt: skip
    assert counts(found) == {
        "bad_row": 1, "bad_id": 2, "duplicate_id": 2, "bad_fps": 2, "frame_num": 1, "missing_source": 1, "duration": 2,
    }  # fmt: skip
    assert found[1].detail == "row 1 has it too"
    assert found[-2].detail == "150 s; the median is 4 s"
    assert {f.kind for f in found} <= KINDS.keys()


def test_clean_table_gives_nothing(tmp_path: Path) -> None:
    path = table(tmp_path, *(f"a_{120 * i}_{120 * i + 120},120,29.97,walks" for i in range(9)))
    assert list(check_released(read_egovid_csv(path))) == []


def test_ends_are_compared_with_files_on_demand(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.zeros((30, 32, 32, 3), np.uint8))
    (tmp_path / "b.mp4").write_bytes(b"no video")
    path = table(tmp_path, "a_0_30,30,30.0,all of it", "a_20_50,30,30.0,beyond", "b_0_30,30,30.0,damaged")
    found = list(check_released(read_egovid_csv(path), tmp_path, probe_files=True))
    assert [(f.kind, f.row) for f in found] == [("beyond_end", 2), ("missing_source", 3)]
    assert list(check_released(read_egovid_csv(path), tmp_path)) == []
    clips = [Clip("x", str(tmp_path / "a.mp4"), 0.0, 1.0), Clip("y", str(tmp_path / "a.mp4"), 0.5, 2.0)]
    assert [(f.kind, f.clip_id) for f in check_clips(clips, probe_files=True)] == [("beyond_end", "y")]


@pytest.mark.parametrize(
    ("clip", "kind"),
    [
        (Clip("a", __file__, 4.0, 4.0), "bad_span"),
        (Clip("first", __file__, 0.0, 4.0), "duplicate_id"),
        (Clip("a", "/none/a.mp4", 0.0, 4.0), "missing_source"),
        (Clip("a", __file__, 0.0, 4.0, extra={"fps": float("nan")}), "bad_fps"),
        (Clip("a", __file__, 0.0, 40.0), "duration"),
    ],
)
def test_clips_of_a_manifest(clip: Clip, kind: str) -> None:
    good = [Clip("first", __file__, 0.0, 4.0), Clip("second", __file__, 4.0, 8.0), Clip("s3", "s3://b/a.mp4", 4.0, 8.0)]
    assert [f.kind for f in check_clips([*good, clip])] == [kind]
    assert list(check_clips(good)) == []
