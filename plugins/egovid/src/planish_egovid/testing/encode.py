"""Writing of frames as the video files that cameras and editors make, easy and awkward ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray
from planish.errors import ConfigError, UnsupportedError

_TICKS = 90_000
_SMALL = 128


def write_video(
    path: str | Path | BinaryIO,
    frames: NDArray[np.uint8],
    *,
    fps: float = 30.0,
    times_s: Sequence[float] | NDArray[np.float64] | None = None,
    crf: int = 20,
    gop: int = 30,
    b_frames: int = 0,
    open_gop: bool = False,
    ten_bit: bool = False,
    rotation: int = 0,
    audio: bool = False,
    sample_aspect_ratio: Fraction | None = None,
    preset: str = "veryfast",
) -> None:
    """Encode frames with libx264, one thread, so that the same frames give the same bytes.

    Args:
        path: File to write, or a writable binary file, which gets an mp4.
        frames: uint8 [frames, height, width, 3], RGB. Odd sizes are kept, with full chroma (yuv444p).
        fps: Frames a second.
        times_s: Times of the frames in seconds, rising, instead of an even rate.
        crf: Constant rate factor: 0 is lossless, 51 is worst.
        gop: Frames from one keyframe to the next.
        b_frames: Most B-frames in a row.
        open_gop: Whether frames before a keyframe may refer to it.
        ten_bit: Whether samples have ten bits.
        rotation: Clockwise degrees that a player turns the picture by: 0, 90, 180 or 270.
        audio: Whether to add a track with a quiet tone.
        sample_aspect_ratio: Width of a pixel over its height, when not square.
        preset: Of libx264.

    Raises:
        ConfigError: The frames have the wrong shape, or times do not match them.
        UnsupportedError: ``rotation`` needs a newer PyAV.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ConfigError(f"frames have shape {frames.shape}; expected [frames, height, width, 3], at least one frame")
    rate = Fraction(fps).limit_denominator(1001)
    ticks = [round(i * _TICKS / rate) for i in range(len(frames))]
    if times_s is not None:
        ticks = [round(float(time) * _TICKS) for time in times_s]
        if len(ticks) != len(frames) or any(b <= a for a, b in pairwise(ticks)):
            raise ConfigError(f"times_s has {len(ticks)} times for {len(frames)} frames; they must match and rise")
    if rotation not in (0, 90, 180, 270):
        raise ConfigError(f"rotation is {rotation}; expected 0, 90, 180 or 270")
    if rotation and not hasattr(av.VideoStream, "set_display_rotation"):
        raise UnsupportedError(f"PyAV {av.__version__} cannot write rotation metadata; pip install --upgrade av")
    height, width = frames.shape[1:3]
    even = height % 2 == 0 and width % 2 == 0
    pixel_format = ("yuv420p" if even else "yuv444p") + ("10le" if ten_bit else "")
    # x264's macroblock tree gives small pictures other bits from run to run.
    steady = ":mbtree=0" if min(height, width) < _SMALL else ""
    parameters = f"keyint={gop}:min-keyint={min(gop, 2)}:scenecut=0:open-gop={int(open_gop)}:bframes={b_frames}"
    target = path if hasattr(path, "write") else str(path)
    with av.open(target, "w", format="mp4" if hasattr(path, "write") else None) as container:
        video: Any = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        video.options = {"crf": str(crf), "preset": preset, "x264-params": parameters + ":threads=1:b-adapt=0" + steady}
        video.codec_context.thread_count = 1
        video.codec_context.time_base = Fraction(1, _TICKS)
        if sample_aspect_ratio is not None:
            video.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if rotation:
            # A display matrix counts counter-clockwise degrees.
            video.set_display_rotation(-rotation)
        sound: Any = container.add_stream("aac", rate=48_000, layout="mono") if audio else None
        for tick, picture in zip(ticks, frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, _TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None:
            _write_tone(container, sound, len(frames) / float(rate))


def _write_tone(container: Any, sound: Any, duration_s: float) -> None:
    rate, block = 48_000, 1024
    for start in range(0, int(duration_s * rate), block):
        wave = 0.1 * np.sin(2 * np.pi * 440 * (start + np.arange(block)) / rate)
        frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(sound.encode(frame))
    container.mux(sound.encode())
