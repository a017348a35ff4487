"""Cutting in windows, and the choice of a segmenter."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.errors import ConfigError, DataError
from planish_egovid.clips import SegmentConfig, Source, make_segmenter, rational_fps
from planish_egovid.clips.windows import WindowSegmenter
from planish_egovid.video import VideoInfo

NTSC = Fraction(30000, 1001)


def spans(clips, fps: Fraction) -> list[tuple[int, int]]:
    return [(round(clip.start_s * fps), round(clip.end_s * fps)) for clip in clips]


def test_windows_side_by_side() -> None:
    found = WindowSegmenter(length_s=4.0).clips(Source("a/walk.mp4", NTSC, 315))
    assert [clip.id for clip in found] == ["walk_0_120", "walk_120_240"]
    assert found[1].path == "a/walk.mp4"
    assert found[1].start_s == pytest.approx(120 * 1001 / 30000, abs=1e-12)
    assert spans(found, NTSC) == [(0, 120), (120, 240)]


def test_rest_is_kept_on_demand() -> None:
    found = WindowSegmenter(length_s=4.0, rest="keep").clips(Source("walk.mp4", Fraction(30), 315))
    assert spans(found, Fraction(30)) == [(0, 120), (120, 240), (240, 315)]
    assert spans(WindowSegmenter(length_s=4.0, rest="keep").clips(Source("a.mp4", Fraction(30), 50)), Fraction(30)) == [
        (0, 50)
    ]
    assert WindowSegmenter(length_s=4.0).clips(Source("a.mp4", Fraction(30), 119)) == []


@given(
    fps=st.sampled_from([30.0, 29.97, 10.0, 59.94]),
    frames=st.integers(1, 4000),
    length_s=st.floats(0.01, 20),
    stride_s=st.floats(0.05, 20),
    rest=st.sampled_from(["drop", "keep"]),
)
def test_windows_stay_inside_and_do_not_drift(
    fps: float, frames: int, length_s: float, stride_s: float, rest: str
) -> None:
    rate = rational_fps(fps)
    found = WindowSegmenter(length_s=length_s, stride_s=stride_s, rest=rest).clips(Source("a.mp4", rate, frames))
    starts = [start for start, _ in spans(found, rate)]
    assert starts == sorted(set(starts))
    assert all(0 <= start < end <= frames for start, end in spans(found, rate))
    whole = [start for start, end in spans(found, rate) if end - start == max(1, round(length_s * rate))]
    step = max(stride_s * rate, 1)
    assert all(abs(start - number * step) <= 0.5 + 1e-6 for number, start in enumerate(whole[:-1]))


def test_whole_file_is_the_default() -> None:
    (clip,) = make_segmenter().clips(Source("a/walk.mp4", NTSC, 315, stream=3))
    assert (clip.id, clip.path, clip.start_s, clip.end_s, clip.extra) == (
        "a/walk.mp4", "a/walk.mp4", 0.0, None, {"stream": 3},
    )  # fmt: skip


def test_segmenter_is_chosen_by_options() -> None:
    config = SegmentConfig(method="windows", length_s=2.0, stride_s=1.0)
    assert spans(make_segmenter(config).clips(Source("a.mp4", Fraction(30), 120)), Fraction(30)) == [
        (0, 60), (30, 90), (60, 120),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="length_s is 0"):
        WindowSegmenter(length_s=0)


def test_source_of_a_probed_file() -> None:
    info = VideoInfo(848, 480, 29.97, frames=400, duration_s=10.5105)
    assert Source.of("a.mp4", info) == Source("a.mp4", NTSC, 315)
    with pytest.raises(DataError, match="neither frames nor duration"):
        Source.of("a.mp4", VideoInfo(848, 480, 30.0, None, None))
