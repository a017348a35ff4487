"""The motion axis on rendered clips: right at any resolution and frame rate, and decided with the right reason."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pytest
from planish_egovid.motion.axis import MotionAxis
from planish_egovid.motion.columns import MotionColumns
from planish_egovid.motion.config import MotionConfig
from planish_egovid.motion.gauge import BUCKETS, WINDOWS
from planish_egovid.testing import Camera, Hand, HeadMotion, RenderedClip, Swing, render_clip
from planish_egovid.testing.memory_view import view_of

WALK = HeadMotion()
CALM = HeadMotion(
    Swing(3.0, 0.4), Swing(1.0, 0.6), Swing(0.5, 1.0), velocity_m_s=(0.1, 0.0, 0.2), bob_m=Swing(0.01, 2.0)
)
"""Moves within the default bounds."""


@lru_cache(maxsize=12)
def clip(
    motion: HeadMotion, fps: float = 7.5, seconds: float = 2.0, camera: Camera | None = None, hand: Hand | None = None
) -> RenderedClip:
    """By default only the frames that are looked at."""
    return render_clip(motion, frames=round(fps * seconds) + 1, fps=fps, camera=camera, hand=hand)


def measured(rendered: RenderedClip, fps: float = 7.5, **options: Any) -> dict[str, Any]:
    axis = MotionAxis(MotionConfig(**options))
    values = axis.measure(view_of(rendered.frames, axis, fps=fps, times_s=rendered.times_s))
    MotionColumns(clip_id="a", **values)
    return values


def true_mean(rendered: RenderedClip, every: int = 2) -> float:
    camera = rendered.truth.camera
    unit = 512 / (0.5 * (camera.height + camera.width))
    last = len(rendered.frames) - every
    flows = [rendered.truth.flow(i, i + every)[0] for i in range(0, last, every)]
    return float(np.mean([np.linalg.norm(flow, axis=-1).mean() * unit for flow in flows]))


@pytest.mark.parametrize(("motion", "tolerance"), [(WALK, 0.025), (CALM, 0.02)], ids=["walk", "calm"])
def test_flow_mean_is_that_of_the_room_over_all_pixels(motion: HeadMotion, tolerance: float) -> None:
    rendered = clip(motion, seconds=4.0)
    found, truth = measured(rendered), true_mean(rendered)
    assert found["flow_pairs"] == 15
    assert found["flow_mean"] == pytest.approx(truth, rel=tolerance)
    assert found["motion_backend"] == f"dis-fast-chain/cv2-{cv2.__version__}"


def test_plain_dis_fails_that() -> None:
    rendered = clip(WALK, seconds=4.0)
    assert measured(rendered, method="plain")["flow_mean"] < 0.9 * true_mean(rendered)


def test_prewarped_and_chained_agree() -> None:
    rendered = clip(WALK)
    prewarped = measured(rendered, method="prewarp")
    assert prewarped["flow_mean"] == pytest.approx(measured(rendered)["flow_mean"], rel=0.02)
    assert "prewarp" in prewarped["motion_backend"]


@pytest.mark.parametrize("motion", [WALK, CALM], ids=["walk", "calm"])
def test_resolution_does_not_matter(motion: HeadMotion) -> None:
    small, large = clip(motion, seconds=1.1), clip(motion, seconds=1.1, camera=Camera(960, 540))
    assert measured(large)["flow_mean"] == pytest.approx(measured(small)["flow_mean"], rel=0.03)


@pytest.mark.parametrize("fps", [10.0, 15.0, 20.0, 25.0, 30000 / 1001, 60.0])
def test_frame_rate_does_not_matter(fps: float) -> None:
    camera = Camera(320, 180)
    reference = measured(clip(CALM, 30.0, 2.0, camera), 30.0)
    found = measured(clip(CALM, fps, 2.0, camera), fps)
    assert found["flow_mean"] == pytest.approx(reference["flow_mean"], rel=0.04)


def test_uneven_frame_times_do_not_matter() -> None:
    camera = Camera(320, 180)
    times = np.arange(61) / 30 + np.where(np.arange(61) % 3 == 1, 0.012, 0.0)
    uneven = render_clip(CALM, times_s=times, camera=camera)
    reference = measured(clip(CALM, 30.0, 2.0, camera), 30.0)
    assert measured(uneven, 30.0)["flow_mean"] == pytest.approx(reference["flow_mean"], rel=0.04)


def test_by_index_the_frame_rate_does_matter() -> None:
    camera = Camera(320, 180)
    at_30 = measured(clip(CALM, 30.0, 2.0, camera), 30.0, compat="official")
    at_60 = measured(clip(CALM, 60.0, 2.0, camera), 60.0, compat="official")
    assert at_60["flow_mean"] == pytest.approx(at_30["flow_mean"] / 2, rel=0.1)


def test_official_sides_are_padded() -> None:
    rendered = clip(CALM, 30.0, 1.0, Camera(320, 180))
    strict, official = (measured(rendered, 30.0, compat=compat) for compat in ("strict", "official"))
    # 180 becomes 184; rows of padding repeat the edge, which moves a little more than the middle.
    assert official["flow_mean"] / strict["flow_mean"] == pytest.approx(500 / 504, abs=0.01)
    assert official["flow_mean"] != strict["flow_mean"]


def test_columns_are_shares_and_means() -> None:
    found = measured(clip(CALM))
    assert sum(found[name] for name in BUCKETS) == pytest.approx(1.0, abs=1e-6)
    assert all(0 <= found[name] <= 1 for name in (*BUCKETS, "flow_valid_frac"))
    assert min(found[name] for name in WINDOWS) < found["flow_mean"] < max(found[name] for name in WINDOWS)
    assert found["flow5_cv"] == pytest.approx(
        np.std([found[n] for n in WINDOWS]) / np.mean([found[n] for n in WINDOWS])
    )


def test_a_turn_is_global_and_a_hand_is_residual() -> None:
    turn = HeadMotion.spinning(15.0)
    alone = measured(clip(turn))
    held = measured(clip(turn, hand=Hand()))
    assert alone["flow_global"] == pytest.approx(alone["flow_mean"], rel=0.02)
    assert alone["flow_residual"] < 0.03 * alone["flow_mean"]
    assert held["flow_residual"] > 3 * alone["flow_residual"]
    assert held["flow_global"] == pytest.approx(alone["flow_global"], rel=0.03)


def test_before_a_still_camera_only_the_hand_moves() -> None:
    held = measured(clip(HeadMotion.still(), hand=Hand()))
    assert held["flow_global"] == 0.0
    assert held["flow_residual"] > 0.1
    assert held["flow_mean"] == pytest.approx(held["flow_residual"], rel=0.5)


def test_plain_walls_do_not_drift() -> None:
    """A thing before a plain wall, things that stand at its foot: DIS alone spreads the motion over the wall."""
    wall = np.full((17, 270, 480, 3), 150, np.uint8)
    wall[:, 200:] = render_clip(HeadMotion.still(), frames=1).frames[0, 200:]
    wall += np.random.default_rng(0).integers(0, 4, wall.shape, dtype=np.uint8)
    for frame in range(17):
        left = 100 + 12 * frame
        wall[frame, 70:150, left : left + 60] = np.indices((80, 60)).sum(axis=0)[..., None] % 32 * 6
    found = [
        MotionAxis(MotionConfig(method=method)).measure(
            view_of(wall, MotionAxis(MotionConfig(method=method)), times_s=np.arange(17) * 4 / 30)
        )["flow_mean"]
        for method in ("chain", "plain")
    ]
    assert found[0] < 0.7 * found[1]


def test_walking_on_moves_the_edges_more_than_the_middle() -> None:
    found = measured(clip(HeadMotion.walking((0.0, 0.0, 0.8))))
    corners = [found[name] for name in WINDOWS[1:]]
    assert found["flow5_center"] < 0.7 * min(corners)
    assert max(corners) < 1.1 * min(corners)
    turning = measured(clip(HeadMotion.spinning(20.0)))
    assert turning["flow5_cv"] < 0.5 * found["flow5_cv"]


def verdicts(values: dict[str, Any]) -> list[str]:
    row = MotionColumns(clip_id="a", **values)
    found = []
    for rule in MotionAxis.rules:
        value, bounds = rule.value(row), rule.default
        assert value is not None
        if bounds.min is not None and value < bounds.min:
            found.append(rule.low)
        if bounds.max is not None and value > bounds.max:
            found.append(rule.high)
    return found


def test_decisions_by_the_default_bounds() -> None:
    assert verdicts(measured(clip(HeadMotion.still()))) == ["motion too low"]
    assert verdicts(measured(clip(CALM))) == []
    assert set(verdicts(measured(clip(HeadMotion.spinning(90.0))))) == {"motion too high"}


def test_more_motion_is_more_flow() -> None:
    means = [measured(clip(CALM.times(factor), camera=Camera(320, 180)))["flow_mean"] for factor in (0, 0.5, 1, 2, 4)]
    assert means == sorted(means)
    assert means[0] < 0.05
    assert means[3] == pytest.approx(2 * means[2], rel=0.1)


def test_a_clip_of_one_frame_has_nulls_and_no_zeros() -> None:
    one = render_clip(WALK, frames=1)
    found = measured(one, 30.0)
    backend, pairs = found.pop("motion_backend"), found.pop("flow_pairs")
    assert set(found.values()) == {None}
    assert pairs == 0
    assert backend.startswith("dis-")


def test_the_same_bits_each_time() -> None:
    rendered = clip(CALM)
    first = measured(rendered)
    measured(clip(HeadMotion.spinning(90.0)))
    assert measured(rendered) == first
    assert {type(value) for value in first.values()} == {float, int, str}


def test_pictures_show_the_flow_and_its_course() -> None:
    axis = MotionAxis(MotionConfig())
    rendered = clip(CALM)
    view = view_of(rendered.frames, axis, fps=7.5)
    row = MotionColumns(clip_id="a", **axis.measure(view))
    flow, course = axis.illustrate(view, row)
    picture = cv2.imdecode(np.frombuffer(flow.data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape == (270, 480, 3)
    assert course.media_type == "image/svg+xml"
    assert course.data.count(b"<circle") == row.flow_pairs
    one = render_clip(WALK, frames=1)
    assert axis.illustrate(view_of(one.frames, axis), row) == []
