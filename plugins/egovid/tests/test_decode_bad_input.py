"""Files and clips that cannot be read: each gives its own error, at once, and FFmpeg prints nothing."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.testing.encode import write_video
from planish_egovid.video import (
    ClipDecodeError,
    ClipRangeError,
    ClipView,
    DecodeConfig,
    FrameRequest,
    NoVideoStreamError,
    decode_clips,
    probe,
)
from planish_egovid.video.stream_info import frame_rate

Texture = Callable[..., np.ndarray]


def outcome(clip: Clip, config: DecodeConfig | None = None) -> ClipView | Exception:
    def requests(clip: Clip, video: Any, duration_s: float) -> list[FrameRequest]:
        return [FrameRequest(tuple(np.arange(0, duration_s, 4 / 30).tolist()), size=48)]

    ((given, found),) = decode_clips([clip], requests, config)
    assert given is clip
    return found


def failure(path: Path, kind: type[Exception] = ClipDecodeError, **clip: Any) -> str:
    found = outcome(Clip("c", str(path), **clip))
    assert isinstance(found, kind), found
    return str(found)


@pytest.fixture
def video(tmp_path: Path, moving_texture: Texture) -> Path:
    path = tmp_path / "good.mp4"
    write_video(path, moving_texture(120), gop=30, b_frames=2)
    return path


def test_missing_empty_text_and_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert failure(tmp_path / "none.mp4") == f"'{tmp_path / 'none.mp4'}' does not exist"
    assert failure(tmp_path).endswith("is a folder")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert failure(tmp_path / "pipe.mp4").endswith("is no file")
    for name, content in {"empty": b"", "text": b"walks to the door\n" * 40, "bytes": bytes(range(256)) * 8}.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        assert "cannot be opened: Invalid data" in failure(tmp_path / f"{name}.mp4")
    assert capfd.readouterr() == ("", "")


def test_playlists_lead_nowhere(tmp_path: Path, video: Path) -> None:
    """A file that names other files or addresses is refused, not followed."""
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttp://192.0.2.1/clip.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    failure(tmp_path / "list.m3u8")
    failure(Path(f"concat:{video}|{video}"))


def test_sound_alone_and_still_images_are_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        sound: Any = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert failure(tmp_path / "sound.mp4", NoVideoStreamError) == "no video stream; it holds audio"
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    for suffix in (".png", ".jpg", ".bmp"):
        data = cv2.imencode(suffix, picture)[1].tobytes()
        for name in (f"still{suffix}", f"still-{suffix[1:]}.mp4"):
            (tmp_path / name).write_bytes(data)
            assert "still image" in failure(tmp_path / name, NoVideoStreamError)


def test_truncated_files_say_how_many_frames_are_left(tmp_path: Path, moving_texture: Texture) -> None:
    """The index of an mp4 that has lost its end still promises all frames."""
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"bf": "0", "g": "30", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in moving_texture(120):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    found = outcome(Clip("whole", str(whole)))
    assert isinstance(found, ClipView)
    assert (found.tally.expected, found.tally.actual) == (120, 120)
    data = whole.read_bytes()
    with av.open(str(whole)) as container:
        ends = [p.pos + p.size for p in container.demux(video=0) if p.size]
    for frames in (1, 30, 87, 119):
        path = tmp_path / f"{frames}.mp4"
        path.write_bytes(data[: ends[frames - 1]])
        assert failure(path).startswith(f"truncated: {frames}/120 frames")
    before = outcome(Clip("before", str(tmp_path / "87.mp4"), 0.5, 2.5))
    assert isinstance(before, ClipView), "a clip that ends before the damage is whole"
    assert before.tally.actual == 60


def test_damage_is_refused_or_counted(tmp_path: Path, video: Path) -> None:
    """A clip with frames that the decoder patches up has an error, or their count; others are not blamed for it."""
    lenient = DecodeConfig(damaged="score")
    with av.open(str(video)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    path = tmp_path / "scratched.mp4"
    # Not every scratch is noticed: some bits decode to another picture. Take the first one that is, largest first.
    for position, size in sorted(packets[40:80], key=lambda packet: -packet[1]):
        data = bytearray(video.read_bytes())
        data[position + size // 3 : position + size // 2] = b"\x55" * (size // 2 - size // 3)
        path.write_bytes(data)
        found = outcome(Clip("whole", str(path)), lenient)
        if isinstance(found, ClipView) and found.tally.damaged:
            break
    assert isinstance(found, ClipView), found
    assert 1 <= found.tally.damaged < 40
    assert failure(path).startswith("damaged: ")
    early = outcome(Clip("early", str(path), 0.0, 0.9))
    assert isinstance(early, ClipView)
    assert early.tally.damaged == 0
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    again = outcome(Clip("whole", str(path)), lenient)
    assert isinstance(again, Exception) or again.tally.damaged >= 1
    failure(path)


def test_spans_that_are_none(video: Path) -> None:
    for span in (
        {"start_s": -1.0},
        {"start_s": float("nan")},
        {"start_s": 2.0, "end_s": 2.0},
        {"start_s": 3.0, "end_s": 1.0},
    ):
        failure(video, ClipRangeError, **span)
    assert "after the end of the file at 4.000 s" in failure(video, ClipRangeError, end_s=9.0)
    assert "at or after the end of the file" in failure(video, ClipRangeError, start_s=4.0)
    assert isinstance(outcome(Clip("c", str(video), 1.0, 4.02)), ClipView), "less than a frame over the end is rounding"


def test_limits_are_refused_before_memory_is_spent(tmp_path: Path, video: Path) -> None:
    assert "longer than max_clip_s=3" in str(outcome(Clip("c", str(video)), DecodeConfig(max_clip_s=3)))
    assert "max_pixels=6000" in str(outcome(Clip("c", str(video)), DecodeConfig(max_pixels=6000)))
    assert isinstance(outcome(Clip("c", str(video)), DecodeConfig(max_pixels=96 * 64)), ClipView)


def _patched(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(box) + len(box) + offset
    return data[:at] + value + data[at + len(value) :]


def test_absurd_headers_are_not_believed(tmp_path: Path, video: Path) -> None:
    """A header of any size, clock or rate gives a clip or an error, and no memory is spent on what it promises."""
    data = video.read_bytes()
    for box, offset, value in [
        (b"avc1", 24, struct.pack(">HH", 65535, 65535)),
        (b"mdhd", 12, struct.pack(">I", 0)),
        (b"mdhd", 12, struct.pack(">I", 1)),
        (b"mdhd", 12, struct.pack(">I", 0xFFFFFFFF)),
        (b"mdhd", 16, struct.pack(">I", 0xFFFFFFFF)),
        (b"stts", 4, struct.pack(">I", 0x7FFFFFFF)),
        (b"stts", 8, struct.pack(">I", 0x7FFFFFFF)),
        (b"stts", 12, struct.pack(">I", 0)),
        (b"stts", 12, struct.pack(">I", 0x7FFFFFFF)),
        (b"stsz", 8, struct.pack(">I", 0x7FFFFFFF)),
    ]:
        path = tmp_path / f"{box.decode()}-{offset}-{value.hex()}.mp4"
        path.write_bytes(_patched(data, box, offset, value))
        found = outcome(Clip("c", str(path)))
        if isinstance(found, ClipView):
            assert found.duration_s <= 120
            assert 0 < found.video.fps <= 10_000
        else:
            assert isinstance(found, ClipDecodeError | ClipRangeError), found


def test_a_length_of_years_is_refused(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planish_egovid.video.video_file.stated_duration", lambda *_: (1e9, True))
    assert "lasts 1e+09 s, longer than max_clip_s=120" in failure(video, ClipRangeError)


@pytest.mark.parametrize("rates", [(Fraction(10**9), None), (Fraction(0), Fraction(0)), (None, Fraction(-5))])
def test_rates_that_cannot_be_are_refused(rates: tuple[Fraction | None, Fraction | None]) -> None:
    stream = SimpleNamespace(average_rate=rates[0], guessed_rate=rates[1], base_rate=None)
    with pytest.raises(ClipDecodeError, match="frame rate"):
        frame_rate(stream)


def test_stream_that_is_asked_for(tmp_path: Path, moving_texture: Texture) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams: list[Any] = []
        for width, height in ((96, 64), (48, 32)):
            stream: Any = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for i in range(12):
            for stream in streams:
                picture = moving_texture(12, stream.width, stream.height, seed=stream.width)[i]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    assert probe(path).width == 96
    assert probe(path, stream=1).width == 48
    small = outcome(Clip("c", str(path), extra={"stream": 1}))
    assert isinstance(small, ClipView)
    assert next(iter(small.decoded.values())).images.shape[1:] == (32, 48)
    assert "stream 7 is no video stream; those are 0, 1" in failure(path, NoVideoStreamError, extra={"stream": 7})
    failure(path, Exception, extra={"stream": "first"})


def test_longer_sound_does_not_make_the_picture_truncated(tmp_path: Path, moving_texture: Texture) -> None:
    for suffix in (".mp4", ".mkv"):
        path = tmp_path / f"clip{suffix}"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            sound: Any = container.add_stream("aac", rate=48_000, layout="mono")
            for picture in moving_texture(30):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
            container.mux(stream.encode())
            for i in range(70):  # half a second more
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 48_000, 1024 * i
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
        found = outcome(Clip("c", str(path)))
        assert isinstance(found, ClipView), found
        assert found.duration_s == pytest.approx(1.0, abs=0.01)


def test_one_frame_is_a_clip(tmp_path: Path, moving_texture: Texture) -> None:
    write_video(tmp_path / "one.mp4", moving_texture(1))
    found = outcome(Clip("c", str(tmp_path / "one.mp4")))
    assert isinstance(found, ClipView), found
    assert found.tally.actual == 1
    assert not found.video.variable_rate


def test_requests_that_fail_concern_their_clip_alone(video: Path) -> None:
    def requests(clip: Clip, video: Any, duration_s: float) -> list[FrameRequest]:
        if clip.id == "bad":
            raise ValueError("this axis cannot")
        return [FrameRequest((0.0,))]

    clips = [Clip("a", str(video), 0, 1), Clip("bad", str(video), 1, 2), Clip("b", str(video), 2, 3)]
    found = {clip.id: view for clip, view in decode_clips(clips, requests)}
    assert isinstance(found["bad"], ValueError)
    assert isinstance(found["a"], ClipView)
    assert isinstance(found["b"], ClipView)


def test_frames_at_the_same_time_are_damage(tmp_path: Path, moving_texture: Texture) -> None:
    """Two frames that claim one time leave open which is on screen."""
    path = tmp_path / "twice.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        packets = []
        for picture in moving_texture(40):
            packets += stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))
        packets += stream.encode()
        packets[6].pts, packets[6].dts = packets[5].pts, packets[5].dts
        container.mux(packets)
    assert failure(path) == "damaged: 1 of 40 frames have errors (two frames have the same presentation time)"
    found = outcome(Clip("c", str(path)), DecodeConfig(damaged="score"))
    assert isinstance(found, ClipView)
    assert found.tally.damaged == 1
