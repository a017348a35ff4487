"""Clip ids, and frames against seconds."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planish.errors import DataError
from planish.interfaces import Clip
from planish_egovid.clips import ClipId, ClipIdError, kinematic_clip, parse_clip_id, rational_fps, to_frame, to_seconds


@given(st.text("abc-_09", min_size=1), st.integers(0, 10**7), st.integers(1, 10**5), st.booleans())
def test_ids_read_back(source: str, start: int, length: int, has_suffix: bool) -> None:
    clip_id = ClipId(source, start, start + length, has_suffix)
    assert parse_clip_id(str(clip_id)) == clip_id
    assert clip_id.frames == length


def test_source_may_have_underscores() -> None:
    assert parse_clip_id("P01_102_0_162.mp4") == ClipId("P01_102", 0, 162, has_suffix=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("uuid_0", "does not end in two frame numbers"),
        ("uuid_a_9", "does not end in two frame numbers"),
        ("uuid_0_-9", "does not end in two frame numbers"),
        ("uuid_0_1٢", "does not end in two frame numbers"),
        ("uuid_9_9", "frames 9 to 9 are no span"),
        ("uuid_9_2.mp4", "frames 9 to 2 are no span"),
        ("_0_9", "names no source"),
        (" ", "expected text such as"),
        (float("nan"), "clip id is nan"),
        (None, "clip id is None"),
    ],
)
def test_wrong_ids_are_named_with_their_row(text: object, said: str) -> None:
    with pytest.raises(ClipIdError, match=f"^row 17: .*{said}"):
        parse_clip_id(text, row=17)


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (30.0, Fraction(30)),
        (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (29.9999, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (0.2, Fraction(1, 5)),
    ],
)
def test_rates_are_rational(fps: float, exact: Fraction) -> None:
    assert rational_fps(fps) == exact


@pytest.mark.parametrize("fps", [0.0, -30.0, float("nan"), float("inf"), Fraction(0)])
def test_rates_that_are_none(fps: float) -> None:
    with pytest.raises(DataError, match="fps is"):
        rational_fps(fps)


@given(st.sampled_from([30.0, 29.97, 23.976, 59.94, 25.0, 12.5]), st.integers(0, 5_000_000))
def test_frames_come_back_from_seconds(fps: float, frame: int) -> None:
    rate = rational_fps(fps)
    assert to_frame(to_seconds(frame, rate), rate) == frame


def test_poses_belong_to_the_first_120_frames() -> None:
    clip = kinematic_clip(Clip("uuid_2730_2892", "uuid.mp4", 91.0, 96.4), 30.0)
    assert (clip.id, clip.start_s, clip.end_s) == ("uuid_2730_2892", 91.0, 95.0)
    with pytest.raises(ClipIdError, match="has 119 frames; poses need 120"):
        kinematic_clip(Clip("uuid_0_119", "uuid.mp4"), 30.0)
