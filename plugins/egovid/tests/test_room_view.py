"""A view made in memory answers requests as a decoder does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.testing import HeadMotion, view_of, write_video
from planish_egovid.testing.fixtures import rendered
from planish_egovid.video.decode import decode_clips
from planish_egovid.video.request import FrameRequest

REQUESTS = (
    FrameRequest((0.01, 0.21, 0.39), "gray", 64),
    FrameRequest((0.01, 0.21, 0.39), "rgb", 32),
    FrameRequest((0.21,), "rgb", 40, "cover"),
    FrameRequest((0.0, 0.21), "gray", fit="native"),
)


@pytest.mark.parametrize("request_", REQUESTS)
def test_view_is_the_decoders(tmp_path: Path, request_: FrameRequest) -> None:
    frames = rendered(HeadMotion(), 12, 30.0, 128, 72).frames
    write_video(tmp_path / "a.mp4", frames, crf=1)
    ((_, decoded),) = decode_clips([Clip("a", str(tmp_path / "a.mp4"))], lambda *_: [request_])
    assert not isinstance(decoded, Exception)
    expected, found = decoded.frames(request_), view_of(frames, lambda *_: [request_]).frames(request_)
    assert found.images.shape == expected.images.shape
    assert found.scale == expected.scale
    np.testing.assert_allclose(found.times_s, expected.times_s, atol=2e-5)
    assert np.abs(found.images.astype(int) - expected.images).mean() < 3


def test_times_may_be_uneven() -> None:
    frames = rendered(HeadMotion(), 4, 30.0, 32, 18).frames
    asked = FrameRequest((0.0, 0.05, 0.3), "rgb", fit="native")
    view = view_of(frames, lambda *_: [asked], times_s=[0.0, 0.1, 0.12, 0.5])
    assert view.video.variable_rate
    np.testing.assert_array_equal(view.frames(asked).images, frames[[0, 0, 2]])
    assert view.frames(asked).times_s.tolist() == [0.0, 0.0, 0.12]
