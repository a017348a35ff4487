"""FlowTrack: which frames it asks for, what it does with them, and that nothing around it matters."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from planish_egovid.flow import track as track_module
from planish_egovid.flow.chain import long_flows
from planish_egovid.flow.dis import DisFlow
from planish_egovid.flow.dominant import dominant_homography
from planish_egovid.flow.pixel_grid import pixel_grid
from planish_egovid.flow.prewarp import Aligner, homography_flow, inverse, keeps_orientation
from planish_egovid.flow.return_check import ReturnCheck
from planish_egovid.flow.track import FlowConfig, flow_requests, flow_track, sampled_times, track_of
from planish_egovid.testing import HeadMotion, RenderedClip
from planish_egovid.testing.fixtures import rendered
from planish_egovid.testing.memory_view import view_of
from planish_egovid.video.request import Frames, VideoInfo


def info(fps: float) -> VideoInfo:
    return VideoInfo(480, 270, fps, None, None)


def frame_on_screen(times: tuple[float, ...], fps: float) -> list[int]:
    return [int(time * fps + 1e-9) for time in times]


@pytest.mark.parametrize(
    ("fps", "duration_s", "expected"),
    [
        (30.0, 4.0, list(range(0, 120, 4))),
        (30000 / 1001, 120 * 1001 / 30000, list(range(0, 120, 4))),
        (60.0, 2.0, list(range(0, 120, 8))),
        (20.0, 1.0, [0, 3, 5, 8, 11, 13, 16, 19]),
        (25.0, 1.0, [0, 3, 7, 10, 13, 17, 20, 23]),
        (10.0, 1.0, [0, 1, 3, 4, 5, 7, 8, 9]),
        (30.0, 1 / 30, [0]),
    ],
)
def test_times_meet_the_frame_nearest_to_every_stride(fps: float, duration_s: float, expected: list[int]) -> None:
    times = sampled_times(info(fps), duration_s, 4 / 30)
    assert frame_on_screen(times, fps) == expected
    assert max(times) < duration_s


@pytest.mark.parametrize("fps", [10.0, 29.97, 60.0])
def test_times_by_index_count_frames_at_any_rate(fps: float) -> None:
    times = sampled_times(info(fps), 40 / fps, 8 / 30, "frames")
    assert frame_on_screen(times, fps) == [0, 8, 16, 24, 32]


def test_times_stand_rounding_of_the_container() -> None:
    # Matroska keeps milliseconds: frame 8 of 30 fps is at 0.267 s, later than 8/30 s.
    stored = np.round(np.arange(40) / 30, 3)
    times = np.asarray(sampled_times(info(30.0), 40 / 30, 8 / 30))
    assert (np.searchsorted(stored, times, side="right") - 1).tolist() == [0, 8, 16, 24, 32]


def test_axes_with_equal_configs_share_the_work(room_clip: RenderedClip, monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of(room_clip.frames[:9], lambda clip, video, duration_s: flow_requests(video, duration_s))
    calls = []
    real = track_module.track_of
    monkeypatch.setattr(track_module, "track_of", lambda *args: calls.append(1) or real(*args))
    assert flow_track(view) is flow_track(view, FlowConfig())
    assert len(calls) == 1


def frames_of(images: NDArray[np.uint8], times_s: list[float]) -> Frames:
    return Frames(images, np.asarray(times_s), 1.0)


def test_repeated_frames_make_no_pairs(room_clip: RenderedClip) -> None:
    gray = np.stack([cv2.cvtColor(room_clip.frames[i], cv2.COLOR_RGB2GRAY) for i in (0, 0, 4, 4, 8)]).astype(np.uint8)
    track = track_of(frames_of(gray, [0.0, 0.0, 0.2, 0.2, 0.4]))
    assert len(track) == 2
    assert track.times_s.tolist() == [0.0, 0.2, 0.4]
    assert track.frame_of.tolist() == [0, 0, 1, 1, 2]
    np.testing.assert_allclose(track.intervals_s, [0.2, 0.2])
    # Steps of the sampling: 0-0 and 2-2 do not move; 0-2-4 does.
    assert [(long.first, long.last) for long in long_flows(track, 1)] == [(0, 1), (1, 2)]
    assert [(long.first, long.last) for long in long_flows(track, 2)] == [(0, 1), (1, 2)]
    assert [(long.first, long.last) for long in long_flows(track, 4)] == [(0, 2)]


@pytest.mark.parametrize("frames", [0, 1])
def test_too_few_frames_make_an_empty_track(frames: int) -> None:
    track = track_of(frames_of(np.zeros((frames, 90, 160), np.uint8), [0.0] * frames))
    assert len(track) == 0
    assert track.forward.shape == (0, 90, 160, 2)
    assert track.valid.shape == (0, 45, 80)
    assert list(long_flows(track, 2)) == []


def test_the_same_bits_whatever_the_threads_and_the_clips_before(room_clip: RenderedClip) -> None:
    gray = np.stack([cv2.cvtColor(room_clip.frames[i], cv2.COLOR_RGB2GRAY) for i in (0, 4, 8)]).astype(np.uint8)
    other = rendered(HeadMotion.spinning(200.0), frames=3)
    threads = cv2.getNumThreads()
    results = []
    try:
        for count in (1, 2, 4):
            cv2.setNumThreads(count)
            track = track_of(frames_of(gray, [0.0, 0.13, 0.27]), FlowConfig(prewarp="always"))
            assert cv2.getNumThreads() == count
            results.append((track.forward.tobytes(), track.valid.tobytes(), next(long_flows(track, 2)).flow.tobytes()))
            track_of(frames_of(np.ascontiguousarray(other.frames[..., 0]), [0.0, 0.13, 0.27]))
    finally:
        cv2.setNumThreads(threads)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("shape", [(12, 480), (480, 20), (16, 16), (33, 47), (1, 1)])
def test_small_and_narrow_pictures_are_padded_for_dis(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    image = cv2.GaussianBlur(random.integers(0, 256, shape, dtype=np.uint8), (0, 0), 1.5)
    flow = DisFlow("fast").pair(image, image)
    assert flow.shape == (*shape, 2)
    assert np.isfinite(flow).all()
    assert np.abs(flow).max() < 1e-3


def test_the_backend_of_a_batch_gives_each_clip_its_own_flow(room_clip: RenderedClip) -> None:
    gray = np.stack([cv2.cvtColor(room_clip.frames[i], cv2.COLOR_RGB2GRAY) for i in (0, 4, 8)]).astype(np.uint8)
    search = DisFlow()
    both = list(search.flows([gray, gray[:1], gray[1:]]))
    assert [flow.shape for flow in both] == [(2, 270, 480, 2), (0, 270, 480, 2), (1, 270, 480, 2)]
    assert both[0][1].tobytes() == both[2][0].tobytes() == search.pair(gray[1], gray[2]).tobytes()


def test_return_check_on_constructed_flow() -> None:
    height, width = 40, 60
    forward = np.zeros((height, width, 2), np.float32)
    forward[..., 0] = 10.0
    backward = -forward
    backward[:20, :, 0] = -8.0
    _, valid, failing = ReturnCheck(height, width, grid=2)(forward, backward)
    assert valid.shape == (20, 30)
    # What ends beyond x = 59 has left; the upper half returns 2 px off.
    assert valid[10:, :25].all()
    assert not valid[:, 25:].any()
    assert not valid[:9].any()
    assert failing == pytest.approx(0.5)


def test_return_check_when_everything_leaves() -> None:
    forward = np.full((10, 10, 2), 99.0, np.float32)
    _, valid, failing = ReturnCheck(10, 10, grid=1)(forward, -forward)
    assert not valid.any()
    assert failing == 1.0


TURN = np.array([[1.01, 0.02, 9.0], [-0.015, 0.99, -4.0], [1e-5, -2e-5, 1.0]])


def test_dominant_homography_is_found_despite_a_hand() -> None:
    flow = homography_flow(TURN, 270, 480, grid=2)
    flow[40:80, 60:120] += (15.0, 3.0)
    found = dominant_homography(flow, np.ones(flow.shape[:2], np.bool_), 2, (270, 480))
    assert found is not None
    np.testing.assert_allclose(homography_flow(found, 270, 480, 2), homography_flow(TURN, 270, 480, 2), atol=0.05)


def test_a_camera_that_stands_still_has_no_dominant_motion() -> None:
    random = np.random.default_rng(0)
    flow = random.normal(0, 0.4, (135, 240, 2)).astype(np.float32)
    # A hand, and what drifts with it on a plain wall.
    flow[:, 130:] = homography_flow(TURN, 270, 480, grid=2)[:, 130:]
    everywhere = np.ones(flow.shape[:2], np.bool_)
    found = dominant_homography(flow, everywhere, 2, (270, 480))
    assert found is not None
    assert (found == np.eye(3)).all()
    # A slow pan of the whole picture is no standstill.
    pan = dominant_homography(flow[:, :1] * 0 + np.float32([1.5, 0]) + 0 * flow, everywhere, 2, (270, 480))
    assert pan is not None
    np.testing.assert_allclose(pan[:2, 2], [1.5, 0], atol=1e-3)


def test_no_dominant_homography_without_trusted_pixels_or_agreement() -> None:
    flow = homography_flow(TURN, 270, 480, grid=2)
    assert dominant_homography(flow, np.zeros(flow.shape[:2], np.bool_), 2, (270, 480)) is None
    scattered = np.random.default_rng(0).uniform(-200, 200, flow.shape).astype(np.float32)
    assert dominant_homography(scattered, np.ones(flow.shape[:2], np.bool_), 2, (270, 480)) is None


def test_inverse_homography_leads_back() -> None:
    there = pixel_grid(50, 80) + homography_flow(TURN, 50, 80)
    back = cv2.perspectiveTransform(there, inverse(TURN))
    np.testing.assert_allclose(back, pixel_grid(50, 80), atol=1e-3)


@pytest.mark.parametrize(
    "homography",
    [np.diag([-1.0, 1.0, 1.0]), np.diag([0.2, 0.2, 1.0]), np.array([[1, 0, 0], [0, 1, 0], [-0.005, 0, 1.0]])],
    ids=["mirrors", "shrinks", "folds"],
)
def test_homographies_that_no_camera_makes_are_refused(homography: NDArray[np.float64]) -> None:
    assert not keeps_orientation(homography, (270, 480))
    assert keeps_orientation(TURN, (270, 480))


def test_nothing_is_aligned_without_features() -> None:
    assert Aligner()(0, np.full((2, 120, 160), 128, np.uint8)) is None


def test_a_clip_of_noise_has_almost_no_valid_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 120, 160), dtype=np.uint8)
    track = track_of(frames_of(noise, [0.0, 0.13, 0.27]))
    assert track.valid_frac.max() < 0.3


def test_a_still_clip_is_valid_and_still(room_clip: RenderedClip) -> None:
    gray = cv2.cvtColor(room_clip.frames[0], cv2.COLOR_RGB2GRAY).astype(np.uint8)
    track = track_of(replace(frames_of(np.stack([gray] * 3), [0.0, 0.13, 0.27])))
    assert np.abs(track.forward).max() < 1e-3
    assert track.valid.all()
    assert not track.prewarped.any()
