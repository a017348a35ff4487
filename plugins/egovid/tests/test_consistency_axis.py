"""Cuts, order and freezes on rendered rooms, whose cuts and order are known exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from planish.interfaces import Clip, Row
from planish_egovid.consistency.appearance import Appearance, difference, standing_out, thumbnail_request
from planish_egovid.consistency.axis import CUT, IN_ORDER, ConsistencyAxis, ConsistencyConfig
from planish_egovid.consistency.cuts import flow_lost
from planish_egovid.flow.track import FlowConfig
from planish_egovid.motion.config import MotionConfig
from planish_egovid.testing import Camera, HeadMotion, Swing, corruptions, render_clip, view_of
from planish_egovid.testing.fixtures import rendered
from planish_egovid.video.request import Frames, VideoInfo

AXIS = ConsistencyAxis(ConsistencyConfig())


def frames_of(motion: HeadMotion | None = None, seed: int = 0, count: int = 120) -> np.ndarray:
    return rendered(motion or HeadMotion(), count, 30.0, 240, 136, seed).frames


def measured(frames: np.ndarray, **options: Any) -> dict[str, Any]:
    columns = AXIS.measure(view_of(frames, AXIS, **options))
    AXIS.Columns(clip_id="a", **columns)
    return columns


def broken(columns: dict[str, Any]) -> list[str]:
    row: Row = AXIS.Columns(clip_id="a", **columns)
    found = []
    for rule in AXIS.rules:
        value = rule.value(row)
        low, high = rule.default.min, rule.default.max
        if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
            found.append(rule.metric)
    return found


def whip(deg_s: float) -> np.ndarray:
    """A head that rests, is flung round by 90 degrees, and rests."""
    times = np.arange(120) / 30
    turned = np.clip((times - 2) * deg_s, 0, 90)
    clip = render_clip(HeadMotion.spinning(90), times_s=list(turned / 90), camera=Camera(240, 136))
    return corruptions.noise(clip.frames, 2.0)


CONTINUOUS: dict[str, Callable[[], np.ndarray]] = {
    "walk": frames_of,
    "quick walk": lambda: frames_of(HeadMotion().times(1.6)),
    "spin": lambda: frames_of(HeadMotion.spinning(90)),
    "fast spin": lambda: frames_of(HeadMotion.spinning(150)),
    "shaking head": lambda: frames_of(replace(HeadMotion(), yaw_deg=Swing(8, 2.5))),
    "onset of a turn": lambda: frames_of(replace(HeadMotion(), yaw_deg=Swing(60, 0.5, -np.pi / 2))),
    "whip": lambda: whip(300),
    "brighter": lambda: corruptions.exposure_jump(frames_of(), 60, 2.0),
    "darker": lambda: corruptions.exposure_jump(frames_of(), 60, 0.4),
    "noisy": lambda: corruptions.noise(frames_of(), 15),
    "blurred": lambda: corruptions.gaussian_blur(frames_of(), 2),
    "compressed": lambda: corruptions.compress(frames_of(), 40),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_shot_has_no_cut_and_is_in_order(name: str) -> None:
    columns = measured(CONTINUOUS[name]())
    assert columns["cuts"] == 0
    assert columns["cut_times_s"] == []
    assert columns["cut_score"] < CUT - 0.05
    assert columns["frame_order"] > IN_ORDER + 0.1
    assert columns["disorder_frac"] == 0
    assert not {"cut_score", "frame_order"} & set(broken(columns))


@pytest.mark.parametrize("at", [5, 37, 63, 110])
def test_a_cut_is_found_at_its_frame(at: int) -> None:
    columns = measured(corruptions.hard_cut(frames_of(), frames_of(seed=1), at))
    assert columns["cut_times_s"] == pytest.approx([at / 30])
    assert columns["cuts"] == 1
    assert columns["cut_score"] > CUT + 0.1
    assert broken(columns) == ["cut_score"]


def test_cuts_are_found_in_gray_pictures_and_in_quick_turns() -> None:
    joined = corruptions.hard_cut(frames_of(), frames_of(seed=1), 63)
    gray = np.repeat(joined.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    assert measured(gray)["cut_times_s"] == pytest.approx([2.1])
    turning = corruptions.hard_cut(frames_of(HeadMotion.spinning(90)), frames_of(seed=1), 50)
    assert measured(turning)["cut_times_s"] == pytest.approx([50 / 30])


def test_several_cuts_are_counted_at_any_rate() -> None:
    one, two = frames_of(count=60), frames_of(seed=1, count=60)
    joined = np.concatenate([one[:20], two[20:40], one[40:]])
    columns = measured(joined, fps=15.0)
    assert columns["cut_times_s"] == pytest.approx([20 / 15, 40 / 15])
    twice = measured(np.repeat(joined, 4, axis=0), fps=60.0)
    assert twice["cut_times_s"] == pytest.approx([20 / 15, 40 / 15], abs=1 / 30)


@pytest.mark.parametrize("count", [24, 40, 80])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_shuffled_stretch_is_out_of_order(count: int, seed: int) -> None:
    columns = measured(corruptions.shuffle_segment(frames_of(), 30, count, seed=seed))
    assert columns["frame_order"] < IN_ORDER - 0.04
    assert 0 < columns["disorder_frac"] < (count + 24) / 120
    assert "frame_order" in broken(columns)


def test_order_of_a_slow_clip_is_told_as_well() -> None:
    slow = frames_of(HeadMotion().times(0.15))
    assert "frame_order" not in broken(measured(slow))
    assert "frame_order" in broken(measured(corruptions.shuffle_segment(slow, 30, 60)))


def test_frozen_frames_are_counted() -> None:
    assert measured(frames_of())["freeze_frac"] == 0
    columns = measured(corruptions.freeze(frames_of(), 40, 40))
    # Frames 40 to 80: ten of 29 steps of four frames.
    assert columns["freeze_frac"] == pytest.approx(10 / 29)
    assert broken(columns) == ["freeze_frac"]


def test_a_still_clip_has_no_order_and_repeats_itself() -> None:
    columns = measured(frames_of(HeadMotion.still()))
    assert columns["frame_order"] is None
    assert columns["disorder_frac"] == 0
    assert columns["freeze_frac"] == 1
    assert columns["cut_score"] == 0


def test_exposure_is_told_in_stops_and_keeps_colours_alike() -> None:
    assert measured(frames_of())["exposure_jump"] < 0.05
    columns = measured(corruptions.exposure_jump(frames_of(), 60, 0.5))
    assert columns["exposure_jump"] == pytest.approx(1, abs=0.1)
    assert min(columns["frame_similarity"]) > 0.9


def test_similarity_falls_with_what_is_seen() -> None:
    walk, other = frames_of(), frames_of(seed=1)
    still = measured(frames_of(HeadMotion.still()))["frame_similarity"]
    assert still == pytest.approx([1.0, 1.0, 1.0])
    cut = measured(corruptions.hard_cut(walk, other, 63))["frame_similarity"]
    assert cut[0] > 0.95
    assert max(cut[1:]) < 0.9


@pytest.mark.parametrize(("count", "similarities"), [(120, 3), (100, 2), (60, 1), (30, 0)])
def test_similarity_goes_as_far_as_the_clip(count: int, similarities: int) -> None:
    found = measured(frames_of()[:count])["frame_similarity"]
    assert (0 if found is None else len(found)) == similarities


def test_what_one_frame_cannot_tell_is_null() -> None:
    columns = measured(frames_of()[:1])
    measured_alone = {k for k, v in columns.items() if v is not None}
    assert measured_alone == {"consistency_backend", "ii_reason"}


def test_repeated_frames_of_a_variable_rate_are_one_frame() -> None:
    frames = frames_of()[::4]
    # The container shows half of the frames for a long time.
    times = np.cumsum(np.tile([0.1, 0.3], 15)) - 0.1
    columns = measured(frames, times_s=times)
    assert columns["freeze_frac"] == 0
    assert columns["cuts"] == 0


def test_without_a_model_ii_sim_is_null_with_its_reason() -> None:
    columns = measured(frames_of())
    assert columns["ii_sim"] is None
    assert columns["ii_reason"] == "no backend"
    assert AXIS.stage() is None


def test_flow_is_the_one_that_motion_uses() -> None:
    assert MotionConfig().flow() == AXIS.config.flow == FlowConfig()
    view = view_of(frames_of()[:20], AXIS)
    AXIS.measure(view)
    assert ("flow_track", FlowConfig()) in view._shared


def test_high_rates_are_thinned_to_about_thirty_frames_a_second() -> None:
    def times(fps: float) -> tuple[float, ...]:
        return thumbnail_request(VideoInfo(64, 36, fps, None, None), 2.0).times_s

    assert [len(times(fps)) for fps in (10, 25, 29.97, 30, 50, 60, 120)] == [20, 50, 60, 60, 50, 60, 60]
    assert times(60)[:2] == pytest.approx((0.5 / 60, 2.5 / 60))
    assert times(29.97)[-1] < 2.0


def test_difference_does_not_see_exposure_or_clipping() -> None:
    thumbnails = frames_of()[:2, ::6, ::6].astype(np.float32)
    same = difference(thumbnails[:1], np.clip(thumbnails[:1] * 1.6, 0, 255))
    assert same[0] < 0.1 * difference(thumbnails[:1], thumbnails[:1, ::-1])[0]
    assert difference(thumbnails[:1], thumbnails[:1])[0] == 0
    assert difference(thumbnails[:0], thumbnails[:0]).shape == (0,)


def test_lost_flow_is_relative_to_its_neighbours() -> None:
    assert flow_lost(np.array([0.8, 0.8, 0.1, 0.8, 0.8]))[2] == pytest.approx(0.875)
    # A fast turn loses flow in several pairs in a row, and none of them stands out.
    assert flow_lost(np.array([0.8, 0.3, 0.3, 0.3, 0.3, 0.3, 0.8])).max() < 0.01
    assert flow_lost(np.array([0.05, 0.05, 0.05])).max() == pytest.approx(0.75)
    assert flow_lost(np.array([0.4])) == pytest.approx([0.6])


def test_a_change_that_stands_alone_stands_out() -> None:
    def found(*changes: float) -> list[float]:
        return standing_out(np.array(changes), 0.01).tolist()

    assert found(0.1, 0.1, 0.5, 0.1) == pytest.approx([0, 0, 0.8, 0])
    assert max(found(0.0, 0.0, 0.2, 0.2, 0.2)) == 0
    # Coding noise in a still clip is no cut.
    assert max(found(0.0, 0.0, 0.008, 0.0)) == 0
    assert found() == []


def test_a_cut_into_wild_motion_is_told_by_colours() -> None:
    shaken = frames_of(replace(HeadMotion(), yaw_deg=Swing(25, 2.0)))
    joined = np.concatenate([shaken[:50], frames_of(seed=1)[50:]])
    assert measured(joined)["cut_times_s"] == pytest.approx([50 / 30])
    assert measured(shaken)["cuts"] == 0


def test_black_frames_are_measured_without_nan() -> None:
    black = np.zeros((60, 72, 128, 3), np.uint8)
    columns = measured(black)
    assert columns["cut_score"] == 0
    assert columns["frame_similarity"] == pytest.approx([1.0])
    frames = Frames(black, np.arange(60) / 30, 1.0)
    assert np.isfinite(Appearance.of(frames).changes).all()


def test_asked_frames_are_those_measured() -> None:
    video = VideoInfo(240, 136, 30.0, 120, 4.0)
    clip = Clip("a", "a.mp4")
    asked = AXIS.requests(clip, video, 4.0)
    assert [(request.pixels, request.size, len(request.times_s)) for request in asked] == [
        ("rgb", 32, 120),
        ("gray", 480, 30),
    ]


def test_pictures_show_the_cut() -> None:
    joined = corruptions.hard_cut(frames_of(), frames_of(seed=1), 63)
    view = view_of(joined, AXIS)
    row = AXIS.Columns(clip_id="a", **AXIS.measure(view))
    plot, pair = AXIS.illustrate(view, row)
    assert plot.media_type == "image/svg+xml"
    assert plot.data.count(b"stroke-dasharray") == 1
    shown = cv2.imdecode(np.frombuffer(pair.data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (136, 2 * 240 + 4)
    # Frame 60 of the first room on the left, frame 64 of the second one on the right.
    for side, frame in ((shown[:, :240], joined[60]), (shown[:, -240:], joined[64])):
        assert np.abs(side.astype(int) - cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)).mean() < 4
    assert "2.10 s" in pair.caption
    assert AXIS.illustrate(view_of(joined[:1], AXIS), row) == []
