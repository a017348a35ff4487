"""Clips around narrations."""

from __future__ import annotations

import logging
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.errors import ConfigError, DataError
from planish_egovid.clips import Narration, NarrationSegmenter, Source, mean_gap

RATE = Fraction(30)


def source(*times: float, frames: int = 3000, fps: Fraction = RATE) -> Source:
    return Source("a/kitchen.mp4", fps, frames, tuple(Narration(t, f"at {t:g}", {"verb_cls": "cut"}) for t in times))


def frames_of(clips, fps: Fraction = RATE) -> list[tuple[int, int]]:
    return [(round(clip.start_s * fps), round(clip.end_s * fps)) for clip in clips]


def test_rule_of_egoclip() -> None:
    # β of this video is 8 s, α 4 s: t ± 8 / (2 · 4) = t ± 1 s.
    found = NarrationSegmenter(mean_gap_s=4.0, min_frames=1).clips(source(10.0, 18.0, 26.0))
    assert frames_of(found) == [(270, 330), (510, 570), (750, 810)]
    assert [clip.text for clip in found] == ["at 10", "at 18", "at 26"]
    assert found[0].extra == {"verb_cls": "cut"}
    assert found[0].id == "kitchen_270_330"


def test_single_narration_takes_the_gap_of_all_videos() -> None:
    assert frames_of(NarrationSegmenter(mean_gap_s=4.0, min_frames=1).clips(source(10.0))) == [(285, 315)]


def test_mean_gap_is_a_mean_of_means() -> None:
    videos = {"a": source(0, 2, 4, 6).narrations, "b": source(9, 3).narrations, "c": source(5).narrations, "d": ()}
    assert mean_gap(videos) == (2.0 + 6.0) / 2
    with pytest.raises(DataError, match="no video has two narrations"):
        mean_gap([source(1, 1).narrations])


def test_short_clips_are_widened_inside_the_video() -> None:
    found = NarrationSegmenter(mean_gap_s=50.0, min_frames=120).clips(source(0.5, 50.0, 99.9))
    assert frames_of(found) == [(0, 120), (1440, 1560), (2880, 3000)]


def test_long_clips_are_narrowed() -> None:
    found = NarrationSegmenter("midpoint", max_s=5.0).clips(source(20.0, 40.0, 41.0))
    # Half way: 0 to 30 s, 30 to 40.5 s, 40.5 to 100 s; each narrowed to 5 s around its middle.
    assert frames_of(found) == [(375, 525), (983, 1133), (2033, 2183)]


def test_fixed_length() -> None:
    assert frames_of(NarrationSegmenter("fixed", length_s=5.0).clips(source(10.0))) == [(225, 375)]


@given(
    times=st.lists(st.floats(-5, 130), max_size=12),
    policy=st.sampled_from(["egoclip", "fixed", "midpoint"]),
    fps=st.sampled_from([RATE, Fraction(30000, 1001), Fraction(10)]),
    frames=st.integers(1, 1500),
)
def test_clips_never_leave_the_video_and_keep_their_bounds(
    times: list[float], policy: str, fps: Fraction, frames: int
) -> None:
    video = source(*times, frames=frames, fps=fps)
    found = NarrationSegmenter(policy, mean_gap_s=4.9, min_frames=60).clips(video)
    spans = frames_of(found, fps)
    assert all(start >= 0 and end <= frames for start, end in spans)
    assert all(60 <= end - start <= 10 * fps for start, end in spans)
    assert len(set(spans)) == len(spans)
    if frames >= 60:
        inside = {time for time in times if 0 <= time < frames / fps}
        assert bool(found) == bool(inside)
    else:
        assert found == []


def test_what_is_outside_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = NarrationSegmenter("fixed").clips(source(10.0, 500.0))
    assert len(found) == 1
    assert "1 narrations lie outside the video" in caplog.text


def test_wrong_input_is_named() -> None:
    with pytest.raises(ConfigError, match="mean_gap_s is missing"):
        NarrationSegmenter().clips(source(10.0))
    with pytest.raises(ConfigError, match="policy is 'nearest'"):
        NarrationSegmenter("nearest")
    with pytest.raises(DataError, match="narration 'at nan' is at nan s"):
        NarrationSegmenter("fixed").clips(source(float("nan")))
    with pytest.raises(DataError, match="max_s 3 is 90 frames at 30 fps, below min_frames 120"):
        NarrationSegmenter("fixed", max_s=3.0).clips(source(10.0))
