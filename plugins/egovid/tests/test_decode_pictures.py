"""Size, colour and orientation of decoded pictures."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.testing.encode import write_video
from planish_egovid.video import ClipDecodeError, ClipView, FrameRequest, Frames, VideoInfo, decode_clips, probe
from planish_egovid.video.orientation import Orientation, orientation_of_matrix

Texture = Callable[..., np.ndarray]


def picture(path: Path, request: FrameRequest) -> tuple[Frames, VideoInfo]:
    ((_, view),) = decode_clips([Clip("c", str(path))], lambda *_: [request])
    assert isinstance(view, ClipView), view
    return view.frames(request), view.video


def corners(width: int = 96, height: int = 64) -> np.ndarray:
    """A frame whose four quarters are black, red, green and blue."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, width // 2 :, 0] = 255
    frame[height // 2 :, : width // 2, 1] = 255
    frame[height // 2 :, width // 2 :, 2] = 255
    return np.repeat(frame[None], 3, axis=0)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_metadata_is_honoured(rotation: int, tmp_path: Path) -> None:
    frames = corners()
    write_video(tmp_path / "turned.mp4", frames, rotation=rotation, crf=1)
    found, info = picture(tmp_path / "turned.mp4", FrameRequest((0.0,), "rgb", fit="native"))
    upright = np.rot90(frames[0], -(rotation // 90))
    assert info.rotation == rotation
    assert (info.height, info.width) == upright.shape[:2]
    assert found.images[0].shape == upright.shape
    # Chroma is coarse and rounded: in the middle of each quarter colours are near.
    step_y, step_x = upright.shape[0] // 4, upright.shape[1] // 4
    for y in (step_y, 3 * step_y):
        for x in (step_x, 3 * step_x):
            assert np.abs(found.images[0][y, x].astype(int) - upright[y, x]).max() < 24


def test_every_display_matrix_of_quarter_turns() -> None:
    """Each maps pixels as the matrix says: (x, y) goes to (a x + c y, b x + d y)."""
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for a, b, c, d in [
        (1, 0, 0, 1),
        (0, 1, -1, 0),
        (-1, 0, 0, -1),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ]:
        placed = {(a * x + c * y, b * x + d * y): image[y, x] for y in range(2) for x in range(3)}
        left, top = min(x for x, _ in placed), min(y for _, y in placed)
        width, height = max(x for x, _ in placed) - left + 1, max(y for _, y in placed) - top + 1
        expected = np.array([[placed[x + left, y + top] for x in range(width)] for y in range(height)])
        found = orientation_of_matrix(65536.0 * a, 65536.0 * b, 65536.0 * c, 65536.0 * d)
        assert np.array_equal(found.apply(image), expected), (a, b, c, d)
        assert found.mirrored == (a * d - b * c < 0)
    assert orientation_of_matrix(65536, 12, -9, 65536) == Orientation()


@pytest.mark.parametrize("matrix", [(0.7, 0.7, -0.7, 0.7), (0, 0, 0, 0), (1, 0, 0, 0), (1, 0.3, 0, 1)])
def test_other_display_matrices_are_refused(matrix: tuple[float, float, float, float]) -> None:
    with pytest.raises(ClipDecodeError, match="no turn by a multiple of 90 degrees"):
        orientation_of_matrix(*matrix)


def test_sizes(tmp_path: Path, moving_texture: Texture) -> None:
    write_video(tmp_path / "clip.mp4", moving_texture(3, 96, 64))
    for request, shape, scale in [
        (FrameRequest((0.0,), "gray", 48), (1, 32, 48), 0.5),
        (FrameRequest((0.0,), "rgb", 48), (1, 32, 48, 3), 0.5),
        (FrameRequest((0.0,), "gray", 480), (1, 64, 96), 1.0),
        (FrameRequest((0.0,), "gray", 32, "cover"), (1, 32, 32), 0.5),
        (FrameRequest((0.0,), "rgb", 128, "cover"), (1, 128, 128, 3), 2.0),
        (FrameRequest((0.0,), "gray", 7, "native"), (1, 64, 96), 1.0),
        (FrameRequest((), "rgb", 48), (0, 32, 48, 3), 0.5),
    ]:
        found, _ = picture(tmp_path / "clip.mp4", request)
        assert found.images.shape == shape
        assert found.images.dtype == np.uint8
        assert found.images.flags.c_contiguous
        assert found.scale == pytest.approx(scale)
        assert found.times_s.shape == shape[:1]


def test_cover_is_the_middle(tmp_path: Path) -> None:
    frames = np.zeros((2, 64, 128, 3), np.uint8)
    frames[:, :, 32:96] = 200
    write_video(tmp_path / "clip.mp4", frames, crf=1)
    found, _ = picture(tmp_path / "clip.mp4", FrameRequest((0.0,), "gray", 64, "cover"))
    assert found.images[0, :, 2:-2].min() > 190


def test_odd_sizes(tmp_path: Path, moving_texture: Texture) -> None:
    write_video(tmp_path / "odd.mp4", moving_texture(2, 97, 63))
    found, info = picture(tmp_path / "odd.mp4", FrameRequest((0.0,), "rgb", fit="native"))
    assert found.images.shape == (1, 63, 97, 3)
    assert (info.width, info.height) == (97, 63)


def test_pixels_that_are_not_square(tmp_path: Path, moving_texture: Texture) -> None:
    write_video(tmp_path / "wide.mp4", moving_texture(2, 96, 64), sample_aspect_ratio=Fraction(4, 3))
    found, info = picture(tmp_path / "wide.mp4", FrameRequest((0.0,), "gray", 64))
    assert (info.width, info.height) == (128, 64)
    assert found.images.shape == (1, 32, 64)
    native, _ = picture(tmp_path / "wide.mp4", FrameRequest((0.0,), "gray", fit="native"))
    assert native.images.shape == (1, 64, 96)


@pytest.mark.parametrize("ten_bit", [False, True])
def test_gray_spans_the_full_range_and_rgb_is_near_what_was_written(ten_bit: bool, tmp_path: Path) -> None:
    """Black is 0 and white 255, although video stores 16 and 235; ten bits are rounded to eight."""
    ramp = np.repeat(np.linspace(0, 255, 128).round().astype(np.uint8)[None, :, None], 64, axis=0)
    frames = np.repeat(np.broadcast_to(ramp, (64, 128, 3))[None], 2, axis=0)
    write_video(tmp_path / "ramp.mp4", frames, crf=1, ten_bit=ten_bit)
    for pixels in ("gray", "rgb"):
        found, info = picture(tmp_path / "ramp.mp4", FrameRequest((0.0,), pixels, fit="native"))
        assert np.abs(found.images[0].astype(int) - (ramp[..., 0] if pixels == "gray" else ramp)).max() <= 4
    assert info.pixel_format == ("yuv420p10le" if ten_bit else "yuv420p")


def test_shrinking_is_one_step_and_does_not_alias(tmp_path: Path) -> None:
    """A checkerboard of single pixels comes out as the gray that it is, like OpenCV's area mean."""
    board = (np.indices((64, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)
    frames = np.repeat(np.repeat(board[None, :, :, None], 3, axis=3), 2, axis=0)
    write_video(tmp_path / "board.mp4", frames, crf=1)
    small, _ = picture(tmp_path / "board.mp4", FrameRequest((0.0,), "gray", 48))
    full, _ = picture(tmp_path / "board.mp4", FrameRequest((0.0,), "gray", fit="native"))
    expected = cv2.resize(full.images[0], (48, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(small.images[0].astype(int) - expected).max() <= 2


def test_probe_tells_what_a_file_is(tmp_path: Path, moving_texture: Texture) -> None:
    write_video(tmp_path / "clip.mp4", moving_texture(30), audio=True)
    info = probe(tmp_path / "clip.mp4")
    assert (info.width, info.height, info.fps, info.frames, info.codec) == (96, 64, 30.0, 30, "h264")
    assert info.duration_s == pytest.approx(1.0)
    assert info.timed


def test_uneven_frame_times_are_noticed(tmp_path: Path, moving_texture: Texture) -> None:
    times = [0.0, 0.033, 0.1, 0.133, 0.3, 0.333]
    write_video(tmp_path / "uneven.mp4", moving_texture(6), times_s=times)
    write_video(tmp_path / "even.mp4", moving_texture(6), fps=30_000 / 1001)
    assert picture(tmp_path / "uneven.mp4", FrameRequest((0.0,)))[1].variable_rate
    assert not picture(tmp_path / "even.mp4", FrameRequest((0.0,)))[1].variable_rate
