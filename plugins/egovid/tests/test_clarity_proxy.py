"""Each part of the proxy measures its own fault on its own scale, and nothing is stored as DOVER's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planish_egovid.clarity.axis import ClarityAxis, ClarityConfig
from planish_egovid.clarity.blockiness import blockiness
from planish_egovid.clarity.exposure import black_borders, clipped_shares
from planish_egovid.clarity.sharpness import measure_detail, noise_sigma
from planish_egovid.testing import Camera, HeadMotion, corruptions, render_clip, view_of
from planish_egovid.testing.fixtures import rendered

AXIS = ClarityAxis(ClarityConfig())
WHITE = np.random.default_rng(0).standard_normal((192, 320))


def frames_of(width: int = 320, height: int = 180) -> np.ndarray:
    return rendered(HeadMotion(), 12, 3.0, width, height).frames


def measured(frames: np.ndarray) -> dict[str, Any]:
    columns = AXIS.measure(view_of(frames, AXIS, fps=3.0))
    AXIS.Columns(clip_id="a", **columns)
    return columns


def test_a_rendered_room_is_clear_and_has_no_dover_score() -> None:
    columns = measured(frames_of())
    assert columns["clarity_proxy"] > 0.6
    assert columns["sharpness"] > 0.7
    assert columns["noise_sigma"] < 1.5
    assert columns["blockiness"] < 1.3
    assert columns["border_frac"] == 0
    assert columns["dover_score"] is columns["dover_technical"] is columns["dover_aesthetic"] is None
    assert columns["dover_backend"] is None
    assert columns["clarity_backend"].startswith("proxy/")
    assert AXIS.stage() is None


@pytest.mark.parametrize("sigma", [1.0, 3.0, 10.0, 30.0])
def test_noise_is_measured_in_grey_levels(sigma: float) -> None:
    flat = np.clip(np.rint(128 + sigma * WHITE), 0, 255).astype(np.uint8)
    assert noise_sigma(flat) == pytest.approx(sigma, rel=0.05)


def test_noise_is_not_taken_for_sharpness() -> None:
    blurred = corruptions.gaussian_blur(frames_of(), 2.0)
    plain, noisy = measured(blurred), measured(corruptions.noise(blurred, 5.0))
    assert noisy["sharpness"] < plain["sharpness"] + 0.15
    assert noisy["clarity_proxy"] < plain["clarity_proxy"] + 0.02


def test_sharpness_knows_neither_contrast_nor_scene() -> None:
    plain = measured(frames_of())["sharpness"]
    paler = (frames_of() * 0.5 + 60).astype(np.uint8)
    assert measured(paler)["sharpness"] == pytest.approx(plain, abs=0.03)
    other = rendered(HeadMotion(), 12, 3.0, 320, 180, 3).frames
    assert measured(other)["sharpness"] == pytest.approx(plain, abs=0.08)


def test_sharpness_is_comparable_between_resolutions() -> None:
    large = render_clip(times_s=[0.3], camera=Camera(1920, 1080)).frames[0].mean(axis=-1)
    small = large.reshape(540, 2, 960, 2).mean(axis=(1, 3))
    detail = [measure_detail(picture.astype(np.uint8)) for picture in (large, small)]
    assert detail[0].fineness is not None
    assert detail[0].fineness == pytest.approx(detail[1].fineness, rel=0.05)


def test_blocks_are_seen_wherever_their_grid_begins() -> None:
    gray = corruptions.gaussian_blur(frames_of(), 1.0)[0].mean(axis=-1)
    assert blockiness(gray.astype(np.uint8)) < 1.3
    steps = np.add.outer(np.arange(180) // 8 % 2, np.arange(320) // 8 % 2) * 8
    blocked = np.clip(gray + steps, 0, 255).astype(np.uint8)
    whole = blockiness(blocked)
    assert whole is not None
    assert whole > 2
    assert blockiness(blocked[3:, 5:]) == pytest.approx(whole, rel=0.1)
    assert blockiness(np.full((64, 64), 90, np.uint8)) is None
    assert blockiness(blocked[:16, :16]) is None


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_bars_are_measured_and_left_out_of_the_rest(share: float) -> None:
    boxed = measured(corruptions.letterbox(frames_of(), share))
    assert boxed["border_frac"] == pytest.approx(share, abs=0.01)
    assert boxed["dark_frac"] < 0.01
    assert boxed["clarity_proxy"] == pytest.approx(measured(frames_of())["clarity_proxy"], abs=0.08)


def test_bars_may_be_noisy_and_on_one_side() -> None:
    boxed = frames_of().copy()
    boxed[:, :, :80] = 4
    noisy = corruptions.noise(boxed, 4.0)
    assert measured(noisy)["border_frac"] == pytest.approx(80 / 320, abs=0.01)


def test_a_scene_that_fades_into_black_has_no_bars() -> None:
    fade = np.clip(np.linspace(-0.3, 1, 180), 0, 1)[None, :, None, None]
    faded = (frames_of() * fade).astype(np.uint8)
    assert (faded[:, :40] == 0).all()
    columns = measured(faded)
    assert columns["border_frac"] == 0
    assert columns["dark_frac"] > 0.2


def test_clipping_is_a_share() -> None:
    gray = np.full((40, 40), 128, np.uint8)
    gray[:10] = 3
    gray[30:, :20] = 255
    assert clipped_shares(gray) == (0.25, 0.125)


def test_a_blank_picture_has_no_sharpness_and_no_clarity() -> None:
    for level in (0, 128, 255):
        columns = measured(np.full((8, 72, 128, 3), level, np.uint8))
        assert columns["sharpness"] is None
        assert columns["blockiness"] is None
        assert columns["clarity_proxy"] == 0
    assert black_borders(np.zeros((2, 36, 64), np.uint8)).share == 0


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (17, 300), (181, 321)])
def test_any_size_is_measured(shape: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3)).astype(np.uint8)
    columns = measured(frames)
    assert 0 <= columns["clarity_proxy"] <= 1


def test_frames_are_spread_over_the_clip() -> None:
    (request,) = ClarityAxis(ClarityConfig(frames=4)).requests(None, None, 8.0)  # type: ignore[arg-type]
    assert request.times_s == (1.0, 3.0, 5.0, 7.0)
    assert (request.pixels, request.fit) == ("gray", "native")
