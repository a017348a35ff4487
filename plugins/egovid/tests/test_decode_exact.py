"""Which frame is on screen when, against a plain decode of the whole file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from planish.interfaces import Clip
from planish_egovid.testing.encode import write_video
from planish_egovid.video import ClipView, FrameRequest, decode_clips
from planish_egovid.video.frame_pass import FramePass
from planish_egovid.video.picture import Look, Pictures
from planish_egovid.video.video_file import VideoFile

LOOK = Look("gray", 0, "native")


def reference(path: Path, threads: int = 1) -> tuple[list[float], list[np.ndarray]]:
    """Every frame of a file and its time, decoded from the first to the last by PyAV alone."""
    with VideoFile(path) as file, av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count, stream.thread_type = threads, "AUTO"
        pictures = Pictures(file)
        frames = list(container.decode(stream))
        times = [
            i / file.info.fps if f.pts is None else float((f.pts - frames[0].pts) * f.time_base)
            for i, f in enumerate(frames)
        ]
        return times, [pictures.convert(frame, LOOK) for frame in frames]


def decoded(clip: Clip, times_s: Sequence[float]) -> ClipView:
    request = FrameRequest(tuple(times_s), fit="native")
    ((_, view),) = decode_clips([clip], lambda *_: [request])
    assert isinstance(view, ClipView), view
    return view


def hevc(path: Path, frames: np.ndarray) -> None:
    _encoded(
        path, frames, "libx265", {"x265-params": "log-level=none:pools=1:bframes=3:keyint=12", "preset": "ultrafast"}
    )


def vp9(path: Path, frames: np.ndarray) -> None:
    _encoded(path, frames, "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"})


def mpeg4(path: Path, frames: np.ndarray) -> None:
    _encoded(path, frames, "mpeg4", {"bf": "2", "g": "12"})


def h264(path: Path, frames: np.ndarray) -> None:
    _encoded(path, frames, "libx264", {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:threads=1"})


def _encoded(path: Path, frames: np.ndarray, codec: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.options = (
            frames.shape[2],
            frames.shape[1],
            "yuv420p",
            options,
        )
        stream.thread_count = 1
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def vfr(path: Path, frames: np.ndarray) -> None:
    steps = np.random.default_rng(3).choice([0.02, 0.033, 0.05, 0.4], len(frames))
    write_video(path, frames, times_s=np.cumsum(steps) - steps[0], b_frames=2, gop=12)


WRITERS: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "no b-frames": (".mp4", lambda p, f: write_video(p, f, gop=12)),
    "b-frames": (".mp4", lambda p, f: write_video(p, f, gop=12, b_frames=3)),
    "open gop": (".mp4", lambda p, f: write_video(p, f, gop=12, b_frames=3, open_gop=True)),
    "one gop": (".mp4", lambda p, f: write_video(p, f, gop=250, b_frames=3, open_gop=True)),
    "variable rate": (".mp4", vfr),
    "ten bit": (".mp4", lambda p, f: write_video(p, f, gop=12, b_frames=2, ten_bit=True)),
    "ntsc rate": (".mp4", lambda p, f: write_video(p, f, fps=30_000 / 1001, gop=12, b_frames=2)),
    "matroska": (".mkv", h264),
    "transport stream": (".ts", h264),
    "avi": (".avi", mpeg4),
    "hevc": (".mp4", hevc),
    "vp9": (".webm", vp9),
    "bare h264": (".h264", h264),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_time_gets_the_frame_on_screen(
    kind: str, tmp_path: Path, moving_texture: Callable[..., np.ndarray]
) -> None:
    """Times on, just after, and between frames, in clips that start anywhere, are those of a plain decode."""
    suffix, write = WRITERS[kind]
    path = tmp_path / f"clip{suffix}"
    write(path, moving_texture(48))
    times, images = reference(path)
    assert len(times) == 48
    end = times[-1]
    for start in (0.0, times[5], times[13] + 0.4 * (times[14] - times[13]), times[23], times[31] - 0.004):
        asked = sorted({t for t in [*times, *(np.linspace(0, end, 17))] if start <= t < end})[::3]
        view = decoded(Clip("c", str(path), start, end), [t - start for t in asked])
        ((request, frames),) = view.decoded.items()
        due = [bisect_right([t - 0.0011 for t in times], start + t) - 1 for t in request.times_s]
        np.testing.assert_allclose(frames.times_s + start, [times[i] for i in due], atol=0.0011)
        for found, i in zip(frames.images, due, strict=True):
            assert np.array_equal(found, images[i]), f"start {start}, frame {i}"


def test_frames_that_nobody_needs_are_not_decoded_and_the_others_are_the_same(
    tmp_path: Path, moving_texture: Callable[..., np.ndarray]
) -> None:
    """Of B-frames that no frame refers to, only those that were asked for come out; all pixels stay what they are."""
    path = tmp_path / "clip.mp4"
    write_video(path, moving_texture(48), gop=24, b_frames=3)
    _, images = reference(path)
    asked = {}
    for skip in (True, False):
        with VideoFile(path) as file:
            came, pictures = 0, Pictures(file)
            decode = file.decode

            def counted(packet: Any, decode: Callable[[Any], list[Any]] = decode) -> list[Any]:
                nonlocal came
                frames = decode(packet)
                came += len(frames)
                return frames

            file.decode = counted  # type: ignore[method-assign]
            targets = [file.tick(i / 30) for i in range(0, 45, 4)]
            one = FramePass(file, targets, file.zero, file.boundary(48 / 30), skip)
            for frame, shown, _ in one.frames():
                index = round(file.seconds(shown) * 30)
                assert np.array_equal(pictures.convert(frame, LOOK), images[index])
            asked[skip] = came
            assert len(one.stamps) == 48
    assert asked[True] < 0.8 * asked[False]


def test_two_threads_decode_the_same(tmp_path: Path, moving_texture: Callable[..., np.ndarray]) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, moving_texture(24), b_frames=2, gop=8)
    _, one = reference(path, threads=1)
    _, two = reference(path, threads=2)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_range_of_a_long_file_is_the_cut_file(tmp_path: Path, moving_texture: Callable[..., np.ndarray]) -> None:
    """What is read of a range has the frames of a file that holds nothing else."""
    frames = moving_texture(60)
    write_video(tmp_path / "long.mp4", frames, crf=0, gop=10)
    write_video(tmp_path / "cut.mp4", frames[20:45], crf=0, gop=10)
    times = [i / 30 for i in range(0, 25, 3)]
    of_range = decoded(Clip("r", str(tmp_path / "long.mp4"), 20 / 30, 45 / 30), times)
    of_cut = decoded(Clip("c", str(tmp_path / "cut.mp4")), times)
    for a, b in zip(of_range.decoded.values(), of_cut.decoded.values(), strict=True):
        assert np.array_equal(a.images, b.images)
        np.testing.assert_allclose(a.times_s, b.times_s, atol=1e-4)
    assert of_range.tally == of_cut.tally
    assert of_range.duration_s == pytest.approx(of_cut.duration_s)


def test_one_opening_serves_overlapping_clips_and_none_depends_on_the_others(
    tmp_path: Path, moving_texture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.mp4"
    write_video(path, moving_texture(240), gop=30, b_frames=2)
    spans = [(0.0, 2.0), (1.0, 2.5), (6.0, 7.9), (1.5, 3.0), (3.2, 4.0), (1.0, 2.5)]
    clips = [Clip(str(i), str(path), *span) for i, span in enumerate(spans)]

    def requests(clip: Clip, video: Any, duration_s: float) -> list[FrameRequest]:
        return [
            FrameRequest(tuple(np.arange(0, duration_s, 4 / 30).tolist()), size=48),
            FrameRequest((0.1, duration_s - 0.1), "rgb", 32, "cover"),
        ]

    def scored(some: Sequence[Clip]) -> dict[str, list[bytes]]:
        found = {}
        for clip, view in decode_clips(some, requests):
            assert isinstance(view, ClipView)
            found[clip.id] = [f.images.tobytes() + f.times_s.tobytes() for f in view.decoded.values()]
        return found

    alone = {clip.id: scored([clip])[clip.id] for clip in clips}
    opened: list[str] = []
    really = av.open
    monkeypatch.setattr(av, "open", lambda name, *a, **k: opened.append(name) or really(name, *a, **k))
    assert scored(clips) == alone
    assert scored(clips[::-1]) == alone
    assert len(opened) == 2


def test_stream_that_does_not_start_at_zero(tmp_path: Path, moving_texture: Callable[..., np.ndarray]) -> None:
    """Time 0 is the first frame, whatever the stream's clock says then."""
    for offset in (900_000, -45_000):
        path = tmp_path / f"{offset}.mkv"
        with av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as container:
            stream: Any = container.add_stream("libx264", rate=30, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for i, picture in enumerate(moving_texture(12)):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = offset + 3000 * i, Fraction(1, 90_000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        view = decoded(Clip("c", str(path)), (0.0, 0.1, 0.35))
        ((_, frames),) = view.decoded.items()
        np.testing.assert_allclose(frames.times_s, [0.0, 0.1, 1 / 3], atol=0.002)
        assert view.duration_s == pytest.approx(0.4, abs=0.002)
        assert view.tally.actual == 12
