"""Damaged video files: what disks, networks and interrupted recorders make of good ones, and files that never were."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import cycle, islice
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.testing.encode import write_video

Video = NDArray[np.uint8]

_ABSURD = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class DamagedFile:
    """A file to be scored.

    Attributes:
        name: File name, unique within the corpus, that says what was done to it.
        content: All its bytes.
        readable: Whether it can be scored all the same; None where it depends on what the damage hit.
    """

    name: str
    content: bytes
    readable: bool | None = None


def damaged_files(count: int = 500, *, seed: int = 0) -> Iterator[DamagedFile]:
    """Yield a corpus of files: odd but good ones, files that are no video, and damaged ones up to ``count``.

    The same arguments give the same bytes under the same PyAV.

    Args:
        count: Files in all; at least those that are not random come.
        seed: Of the random damage.
    """
    good = good_files()
    made = 0
    for file in (*_odd_files(good), *_no_videos(good)):
        made += 1
        yield file
    chance = random.Random(seed)
    kinds = cycle([(name, way) for way in _WAYS for name in good])
    for i, (name, way) in enumerate(islice(kinds, max(count - made, 0))):
        stem, _, suffix = name.rpartition(".")
        yield DamagedFile(f"{i:04d}-{stem}-{way.__name__.strip('_')}.{suffix}", way(good[name], chance))


def good_files() -> dict[str, bytes]:
    """Return small good files of many formats: file name -> bytes, each of 24 frames at 64 by 48 pixels."""
    frames = _frames()
    found = {}
    # Of very small pictures x264's tree of macroblocks reads what nobody wrote, and the bytes vary.
    x264 = "rc-lookahead=0:mbtree=0:b-adapt=0:threads=1:crf=20:keyint="
    for name, codec, options, container in (
        ("h264.mp4", "libx264", {"x264-params": f"{x264}8:bframes=2"}, {}),
        ("faststart.mp4", "libx264", {"x264-params": f"{x264}24:bframes=0"}, {"movflags": "faststart"}),
        ("fragments.mp4", "libx264", {"x264-params": f"{x264}8"}, {"movflags": "frag_keyframe+empty_moov"}),
        ("h264.mkv", "libx264", {"x264-params": f"{x264}8:bframes=2"}, {}),
        ("h264.ts", "libx264", {"x264-params": f"{x264}8:bframes=2"}, {}),
        ("mpeg4.avi", "mpeg4", {"g": "8", "bf": "2"}, {}),
        ("mjpeg.mov", "mjpeg", {"qmin": "4"}, {}),
        ("vp9.webm", "libvpx-vp9", {"g": "8", "deadline": "realtime", "cpu-used": "8"}, {}),
        ("hevc.mp4", "libx265", {"x265-params": "log-level=none:pools=none:keyint=8", "preset": "ultrafast"}, {}),
        ("mpeg2.mpg", "mpeg2video", {"g": "8", "bf": "2"}, {}),
    ):
        try:
            found[name] = _encoded(frames, name, codec, options, container)
        except (av.error.FFmpegError, ValueError):
            continue  # this FFmpeg was built without the encoder
    return found


def _frames(count: int = 24, width: int = 64, height: int = 48) -> Video:
    chance = np.random.default_rng(0)
    sheet = cv2.resize(chance.random((8, 20, 3), dtype=np.float32), (width + 3 * count, height))
    picture = (sheet * 255).astype(np.uint8)
    return np.stack([picture[:, 3 * i : 3 * i + width] for i in range(count)])


def _encoded(
    frames: Video,
    name: str,
    codec: str,
    options: Mapping[str, str],
    container_options: Mapping[str, str],
    start: int = 0,
) -> bytes:
    kinds = {"mp4": "mp4", "mkv": "matroska", "ts": "mpegts", "avi": "avi", "mov": "mov", "webm": "webm", "mpg": "mpeg"}
    target = BytesIO()
    suffix = name.rpartition(".")[2]
    # Without the flag, Matroska files get random identifiers.
    with av.open(target, "w", format=kinds[suffix], options={"fflags": "+bitexact", **container_options}) as container:
        stream: Any = container.add_stream(codec, rate=25, options=dict(options))
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = start + i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


# ---- files that are odd, but good


def _odd_files(good: Mapping[str, bytes]) -> Iterator[DamagedFile]:
    frames = _frames()
    for name, content in good.items():
        yield DamagedFile(f"good-{name}", content, True)
    odd: dict[str, dict[str, Any]] = {
        "one-frame": {},
        "variable-rate": {"times_s": np.cumsum([0.0, *([0.02, 0.3, 0.05] * 8)])[: len(frames)]},
        "rotated-90": {"rotation": 90},
        "rotated-180": {"rotation": 180},
        "ten-bit": {"ten_bit": True},
        "open-gop": {"open_gop": True, "b_frames": 3, "gop": 8},
        "with-sound": {"audio": True},
    }
    for name, options in odd.items():
        target = BytesIO()
        write_video(target, frames[:1] if name == "one-frame" else frames, **options)
        yield DamagedFile(f"{name}.mp4", target.getvalue(), True)
    target = BytesIO()
    write_video(target, _frames(width=33, height=17))
    yield DamagedFile("odd-size.mp4", target.getvalue(), True)
    negative = _encoded(
        frames,
        "x.mkv",
        "libx264",
        {"x264-params": "rc-lookahead=0:mbtree=0:b-adapt=0:threads=1:crf=20:bframes=0"},
        {"avoid_negative_ts": "disabled"},
        -9,
    )
    yield DamagedFile("negative-time-stamps.mkv", negative, None)
    late = _encoded(
        frames,
        "x.ts",
        "libx264",
        {"x264-params": "rc-lookahead=0:mbtree=0:b-adapt=0:threads=1:crf=20:bframes=0"},
        {},
        100_000,
    )
    yield DamagedFile("starts-late.ts", late, True)


# ---- files that are no video


def _no_videos(good: Mapping[str, bytes]) -> Iterator[DamagedFile]:
    mp4 = good["h264.mp4"]
    for name, content in {
        "zero-bytes.mp4": b"",
        "one-byte.mp4": b"\0",
        "text.mp4": b"the wearer opens the fridge\n" * 50,
        "page.mp4": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zeros.mp4": bytes(4096),
        "all-bytes.mkv": bytes(range(256)) * 16,
        "header-only.mp4": mp4[:32],
        "no-index.mp4": mp4[: mp4.index(b"moov") - 4],
        "index-alone.mp4": mp4[:32] + mp4[mp4.index(b"moov") - 4 :],
        "playlist.mp4": b"#EXTM3U\n#EXTINF:4,\n/etc/hostname\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile good-h264.mp4\n",
        "picture.png": _picture(".png"),
        "picture-as-video.mp4": _picture(".jpg"),
        "sound-alone.mp4": _sound(),
    }.items():
        yield DamagedFile(name, content, False)
    for at, size in ((24, (65535, 65535)), (24, (0, 0)), (24, (1, 65535))):
        start = mp4.index(b"avc1") + 4 + at
        content = mp4[:start] + struct.pack(">HH", *size) + mp4[start + 4 :]
        yield DamagedFile(f"says-{size[0]}x{size[1]}.mp4", content, None)
    for box, at in (
        (b"mdhd", 16),
        (b"mdhd", 20),
        (b"mvhd", 16),
        (b"mvhd", 20),
        (b"stts", 8),
        (b"stts", 12),
        (b"stsz", 12),
    ):
        for value in _ABSURD:
            start = mp4.index(box) + at
            content = mp4[:start] + struct.pack(">I", value) + mp4[start + 4 :]
            yield DamagedFile(f"{box.decode()}-{at}-is-{value:x}.mp4", content, None)


def _picture(suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, _frames(1)[0])[1].tobytes())


def _sound() -> bytes:
    target = BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


# ---- random damage


def _truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _cut_by_a_few_bytes(content: bytes, chance: random.Random) -> bytes:
    return content[: -chance.randint(1, 64)]


def _without_beginning(content: bytes, chance: random.Random) -> bytes:
    return content[chance.randint(1, len(content) // 2) :]


def _one_bit(content: bytes, chance: random.Random) -> bytes:
    return _flipped(content, chance, 1, len(content))


def _many_bits(content: bytes, chance: random.Random) -> bytes:
    return _flipped(content, chance, max(len(content) // 200, 8), len(content))


def _bits_at_the_beginning(content: bytes, chance: random.Random) -> bytes:
    return _flipped(content, chance, 6, min(1024, len(content)))


def _bits_at_the_end(content: bytes, chance: random.Random) -> bytes:
    return _flipped(content[::-1], chance, 6, min(1024, len(content)))[::-1]


def _zeroed_span(content: bytes, chance: random.Random) -> bytes:
    start, stop = _span(content, chance)
    return content[:start] + bytes(stop - start) + content[stop:]


def _noise_span(content: bytes, chance: random.Random) -> bytes:
    start, stop = _span(content, chance)
    return content[:start] + chance.randbytes(stop - start) + content[stop:]


def _removed_span(content: bytes, chance: random.Random) -> bytes:
    start, stop = _span(content, chance)
    return content[:start] + content[stop:]


def _repeated_span(content: bytes, chance: random.Random) -> bytes:
    start, stop = _span(content, chance)
    return content[:stop] + content[start:]


def _swapped_chunks(content: bytes, chance: random.Random) -> bytes:
    a, b, c, d = sorted(chance.randrange(len(content)) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _absurd_number(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(0, max(len(content) - 4, 1))
    return content[:at] + struct.pack(">I", chance.choice(_ABSURD)) + content[at + 4 :]


def _joined_to_itself(content: bytes, chance: random.Random) -> bytes:
    return content + content[chance.randrange(len(content)) :]


def _flipped(content: bytes, chance: random.Random, bits: int, within: int) -> bytes:
    changed = bytearray(content)
    for _ in range(bits):
        changed[chance.randrange(within)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _span(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content))
    return start, min(start + chance.randint(1, max(len(content) // 4, 1)), len(content))


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _truncated,
    _cut_by_a_few_bytes,
    _without_beginning,
    _one_bit,
    _many_bits,
    _bits_at_the_beginning,
    _bits_at_the_end,
    _zeroed_span,
    _noise_span,
    _removed_span,
    _repeated_span,
    _swapped_chunks,
    _absurd_number,
    _joined_to_itself,
)
