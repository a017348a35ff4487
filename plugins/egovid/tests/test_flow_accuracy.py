"""Flow by DIS against the exact flow of a rendered room."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from planish_egovid.flow.chain import long_flows
from planish_egovid.flow.track import FlowConfig, FlowTrack, track_of
from planish_egovid.testing import HeadMotion, RenderedClip, Room, render_clip
from planish_egovid.video.request import Frames

STRIDE_S = 4 / 30
WALK = HeadMotion()
"""Looks around with up to 50 degrees a second: 55 px over 8 frames."""
BRISK = HeadMotion(start_m=(1.2, 0.3, -2.5), velocity_m_s=(-0.3, 0.0, 0.8))


@lru_cache(maxsize=4)
def sampled(motion: HeadMotion, seed: int = 0, steps: int = 29) -> RenderedClip:
    return render_clip(motion, times_s=np.arange(steps + 1) * STRIDE_S, room=Room(seed))


def gray(clip: RenderedClip, every: int = 1) -> Frames:
    images = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames[::every]])
    return Frames(images.astype(np.uint8), clip.times_s[::every], 1.0)


@lru_cache(maxsize=8)
def track(motion: HeadMotion, seed: int, config: FlowConfig, every: int = 1) -> FlowTrack:
    return track_of(gray(sampled(motion, seed), every), config)


def magnitude_errors(clip: RenderedClip, found: FlowTrack, links: int, every: int = 1) -> NDArray[np.float64]:
    """Relative error of each pair's mean magnitude over the pixels that are visible in both frames."""
    errors = []
    for long in long_flows(found, links, filled=found.config.prewarp != "never"):
        truth, visible = clip.truth.flow(long.first * every, long.last * every)
        truth, visible = truth[:: long.grid, :: long.grid], visible[:: long.grid, :: long.grid]
        there = np.linalg.norm(truth, axis=-1)[visible].mean()
        errors.append(np.linalg.norm(long.flow, axis=-1)[visible].mean() / there - 1)
    return np.asarray(errors)


@pytest.mark.parametrize(("motion", "seed"), [(WALK, 0), (BRISK, 3)], ids=["walk", "brisk"])
@pytest.mark.parametrize("links", [1, 2], ids=["stride 4", "stride 8"])
def test_magnitude_of_every_pair_is_within_2_percent(motion: HeadMotion, seed: int, links: int) -> None:
    errors = magnitude_errors(sampled(motion, seed), track(motion, seed, FlowConfig()), links)
    assert len(errors) == 29 // links
    assert np.abs(errors).max() <= 0.02
    assert abs(errors.mean()) <= 0.01


@pytest.mark.parametrize(("motion", "seed"), [(WALK, 0), (BRISK, 3)], ids=["walk", "brisk"])
def test_flow_that_is_not_chained_is_not(motion: HeadMotion, seed: int) -> None:
    plain = track(motion, seed, FlowConfig(stride_s=2 * STRIDE_S, prewarp="never"), every=2)
    errors = magnitude_errors(sampled(motion, seed), plain, 1, every=2)
    assert len(errors) == 14
    assert np.abs(errors).max() > 0.02


@pytest.mark.parametrize(
    ("config", "links", "every", "limit_px"),
    [
        (FlowConfig(), 1, 1, 0.3),
        (FlowConfig(), 2, 1, 0.45),
        (FlowConfig(stride_s=2 * STRIDE_S, prewarp="always"), 1, 2, 0.15),
    ],
    ids=["stride 4", "chained", "prewarped"],
)
def test_half_of_the_visible_pixels_are_a_fraction_of_a_pixel_off(
    config: FlowConfig, links: int, every: int, limit_px: float
) -> None:
    clip = sampled(WALK)
    medians = []
    for long in long_flows(track(WALK, 0, config, every), links):
        truth, visible = clip.truth.flow(long.first * every, long.last * every)
        gap = np.linalg.norm(long.flow - truth[:: long.grid, :: long.grid], axis=-1)
        medians.append(np.median(gap[visible[:: long.grid, :: long.grid]]))
    assert np.mean(medians) <= limit_px


def test_valid_pixels_are_right_and_leaving_ones_are_never_valid() -> None:
    clip, found = sampled(WALK), track(WALK, 0, FlowConfig())
    wrong, kept = [], []
    for pair in range(len(found)):
        truth, visible = clip.truth.flow(pair, pair + 1)
        mask = found.valid_mask(pair)
        assert mask.shape == visible.shape
        gap = np.linalg.norm(found.forward[pair] - truth, axis=-1)
        wrong.append(np.mean(gap[mask] > 2.0))
        kept.append(mask[visible].mean())
        # A pixel may be off by a little at the very edge.
        assert (mask & ~visible).mean() < 0.01
        assert found.valid_frac[pair] == pytest.approx(mask.mean(), abs=0.01)
    assert np.mean(wrong) < 0.02
    assert np.mean(kept) > 0.8


def test_correspondences_obey_the_relative_pose() -> None:
    clip, found = sampled(WALK), track(WALK, 0, FlowConfig())
    first, second = found.correspondences(3, spacing=8)
    assert first.shape == second.shape
    assert first.shape[1] == 2
    assert set(np.unique(first[:, 0] % 8)) == {4.0}
    truth, _ = clip.truth.flow(3, 4)
    x, y = first.astype(int).T
    assert np.median(np.linalg.norm(second - first - truth[y, x], axis=1)) < 0.35
    with pytest.raises(ValueError, match="no multiple"):
        found.correspondences(3, spacing=3)


def test_a_spin_beyond_the_reach_of_dis_is_saved_by_aligning_the_frames() -> None:
    clip = render_clip(HeadMotion.spinning(220.0), times_s=np.arange(4) * STRIDE_S, room=Room(2))
    without = magnitude_errors(clip, track_of(gray(clip), FlowConfig(prewarp="never")), 1)
    found = track_of(gray(clip), FlowConfig())
    assert found.prewarped.all()
    assert np.abs(magnitude_errors(clip, found, 1)).max() < 0.02
    assert np.abs(without).max() > 0.1


def test_a_turn_has_the_flow_of_its_homography() -> None:
    clip = render_clip(HeadMotion.spinning(30.0), times_s=np.arange(3) * STRIDE_S)
    (long,) = long_flows(track_of(gray(clip)), 2)
    camera = clip.truth.camera
    turn = clip.truth.relative_pose(0, 2)[:3, :3]
    expected = camera.matrix @ turn @ np.linalg.inv(camera.matrix)
    corners = np.array([[[0, 0], [479, 0], [479, 269], [0, 269], [239.5, 134.5]]], np.float64)
    assert long.homography is not None
    off = cv2.perspectiveTransform(corners, long.homography) - cv2.perspectiveTransform(corners, expected)
    assert np.abs(off).max() < 1.0
    # The middle moves by f tan(angle), whatever the depth.
    middle = long.flow[62:73, 115:126].mean(axis=(0, 1))
    np.testing.assert_allclose(middle, [-camera.focal_px * np.tan(np.radians(8.0)), 0], rtol=0.02, atol=0.2)
