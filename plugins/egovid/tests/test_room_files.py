"""Encoded rooms have the awkward properties that were asked for, and corruptions do what they say."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from planish.errors import ConfigError
from planish_egovid.testing import HeadMotion, corruptions, write_video
from planish_egovid.testing.fixtures import rendered


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return rendered(HeadMotion(), 12, 30.0, 96, 54).frames


def read(path: Path | BytesIO) -> tuple[list[av.VideoFrame], Any]:
    with av.open(path if isinstance(path, BytesIO) else str(path)) as container:
        return list(container.decode(video=0)), {
            "audio": len(container.streams.audio),
            "b": container.streams.video[0].codec_context.has_b_frames,
            "sar": container.streams.video[0].sample_aspect_ratio,
        }


def pictures(found: list[av.VideoFrame]) -> np.ndarray:
    return np.stack([frame.to_ndarray(format="rgb24") for frame in found])


def test_a_plain_file_holds_the_frames_at_their_times(tmp_path: Path, frames: np.ndarray) -> None:
    write_video(tmp_path / "a.mp4", frames, fps=29.97, crf=10)
    found, stream = read(tmp_path / "a.mp4")
    assert len(found) == 12
    assert stream["audio"] == 0
    np.testing.assert_allclose([float(f.time) for f in found], np.arange(12) * 1001 / 30000, atol=2e-5)
    assert np.abs(pictures(found).astype(int) - frames).mean() < 6
    write_video(tmp_path / "b.mp4", frames, fps=29.97, crf=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_awkward_files_are_as_asked(tmp_path: Path, frames: np.ndarray) -> None:
    path = tmp_path / "a.mp4"
    times = np.cumsum([0.0, 0.02, 0.05, 0.01, 0.1, 0.03, 0.03, 0.04, 0.02, 0.02, 0.07, 0.01])
    write_video(path, frames, times_s=times)
    np.testing.assert_allclose([float(f.time) for f in read(path)[0]], times, atol=2e-5)

    write_video(path, frames[:, :-1, :-1], rotation=90, audio=True)
    found, stream = read(path)
    assert (found[0].width, found[0].height, found[0].rotation) == (95, 53, -90)
    assert stream["audio"] == 1

    write_video(path, frames, ten_bit=True, sample_aspect_ratio=Fraction(4, 3))
    found, stream = read(path)
    assert found[0].format.name == "yuv420p10le"
    assert stream["sar"] == Fraction(4, 3)


def test_frames_may_lean_on_later_ones_and_on_the_next_keyframe(tmp_path: Path, frames: np.ndarray) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, frames, gop=5, b_frames=2, open_gop=True)
    found, stream = read(path)
    assert stream["b"]
    assert [PictureType(f.pict_type) for f in found].count(PictureType.B) >= 3
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    # In an open group, frames that are shown before a keyframe are stored after it.
    keyframe = next(i for i, p in enumerate(packets) if p.is_keyframe and i)
    assert packets[keyframe + 1].pts < packets[keyframe].pts
    assert len(found) == 12
    assert np.abs(pictures(found).astype(int) - frames).mean() < 10


def test_what_cannot_be_written_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"shape \(12, 54, 96\)"):
        write_video(tmp_path / "a.mp4", frames[..., 0])
    with pytest.raises(ConfigError, match="2 times for 12 frames"):
        write_video(tmp_path / "a.mp4", frames, times_s=[0.0, 1.0])
    with pytest.raises(ConfigError, match="rotation is 45; expected 0, 90, 180 or 270"):
        write_video(tmp_path / "a.mp4", frames, rotation=45)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"96x53; H.264 with 4:2:0 chroma needs even sides"):
        corruptions.compress(frames[:, :-1])


def test_corruptions_change_what_they_name_and_no_more(frames: np.ndarray) -> None:
    kept = frames.copy()
    frozen = corruptions.freeze(frames, 3, 4)
    assert (frozen[3:8] == frames[3]).all()
    assert (frozen[:4] == frames[:4]).all()
    assert (frozen[8:] == frames[8:]).all()
    shuffled = corruptions.shuffle_segment(frames, 2, 8, seed=1)
    assert (shuffled[:2] == frames[:2]).all()
    assert (shuffled[10:] == frames[10:]).all()
    assert sorted(f.tobytes() for f in shuffled) == sorted(f.tobytes() for f in frames)
    assert (shuffled != frames).any()
    other = rendered(HeadMotion(), 12, 30.0, 96, 54, 1).frames
    cut = corruptions.hard_cut(frames, other, 5)
    assert (cut[:5] == frames[:5]).all()
    assert (cut[5:] == other[5:]).all()
    jumped = corruptions.exposure_jump(frames, 6, 0.5)
    assert (jumped[:6] == frames[:6]).all()
    assert jumped[6:].mean() == pytest.approx(frames[6:].mean() / 2, rel=0.01)
    noisy = corruptions.noise(frames, 4.0)
    assert (noisy.astype(float) - frames).std() == pytest.approx(4.0, rel=0.05)
    assert not np.array_equal(noisy[0].astype(int) - frames[0], noisy[1].astype(int) - frames[1])
    boxed = corruptions.letterbox(frames, 0.3)
    assert (boxed[:, :8] == 0).all()
    assert (boxed[:, -8:] == 0).all()
    assert (boxed[:, 8:-8] == frames[:, 8:-8]).all()
    assert corruptions.gaussian_blur(frames, 2.0).std() < frames.std()
    assert (corruptions.gaussian_blur(frames, 0.0) == frames).all()
    errors = [np.abs(corruptions.compress(frames, crf).astype(int) - frames).mean() for crf in (10, 30, 45)]
    assert errors[0] < errors[1] < errors[2]
    assert (frames == kept).all()
