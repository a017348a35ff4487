"""What a container says of its streams, read with suspicion: any of it may be missing or absurd."""

from __future__ import annotations

import math
from typing import Any

from av.stream import Disposition

from planish_egovid.video.errors import ClipDecodeError, NoVideoStreamError

MAX_FPS = 10_000.0
"""The fastest frame rate that is believed."""
MAX_PIXEL_ASPECT = 8.0
"""The longest pixel that is believed."""

_STILL_FORMATS = frozenset({"image2", "image2pipe", "ico", "tty", "alias_pix", "brender_pix"})
_PLAYLISTS = frozenset({"concat", "dash", "hls", "imf", "rtsp", "sdp", "webm_dash_manifest"})
_STILL_BRANDS = frozenset({"avif", "heic", "heix", "mif1"})
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_TRANSFERS = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "iec61966-2-4",
    13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip


def video_stream(container: Any, wanted: int | None) -> Any:
    """Return the stream of moving pictures with index ``wanted``, or else the best one.

    Raises:
        NoVideoStreamError: There is none.
        ClipDecodeError: There is one that this FFmpeg cannot decode, or the file only names other files.
    """
    name = container.format.name
    if _PLAYLISTS & set(name.split(",")):
        raise ClipDecodeError(f"a playlist ({name}) that names other files, not a video; give those")
    brand = container.metadata.get("major_brand", "").strip()
    if name in _STILL_FORMATS or name.endswith("_pipe") or brand in _STILL_BRANDS:
        raise NoVideoStreamError(f"a still image or text ({name}), not a video")
    moving = [stream for stream in container.streams.video if not stream.disposition & _STILL]
    if not moving:
        kinds = sorted({stream.type for stream in container.streams})
        held = f"it holds {', '.join(kinds)}" if kinds else "it holds no stream"
        raise NoVideoStreamError(f"no video stream; {held}{' (a cover picture)' if container.streams.video else ''}")
    if wanted is not None:
        found = next((stream for stream in moving if stream.index == wanted), None)
        if found is None:
            raise NoVideoStreamError(
                f"stream {wanted} is no video stream; those are {', '.join(str(s.index) for s in moving)}"
            )
    else:
        best = container.streams.best("video")
        found = next((stream for stream in moving if best is not None and stream.index == best.index), moving[0])
    if found.codec_context is None:
        raise ClipDecodeError(f"stream {found.index} is in a format that this FFmpeg has no decoder for")
    return found


def frame_rate(stream: Any) -> float:
    """Return the average frames a second.

    Raises:
        ClipDecodeError: No rate is stated, or an impossible one.
    """
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            fps = float(rate)
            if 0 < fps <= MAX_FPS:
                return fps
            raise ClipDecodeError(f"a frame rate of {fps:g} a second is not believed; at most {MAX_FPS:g} is")
    raise ClipDecodeError("the frame rate is not stated, or 0")


def pixel_aspect(stream: Any) -> float:
    """Return the width of a pixel over its height; 1 if it is not stated.

    Raises:
        ClipDecodeError: It is impossible.
    """
    ratio = stream.sample_aspect_ratio
    if not ratio:
        return 1.0
    aspect = float(ratio)
    if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
        raise ClipDecodeError(f"pixels {aspect:g} times as wide as high are not believed")
    return aspect


def stated_duration(container: Any, stream: Any, start_s: float) -> tuple[float | None, bool]:
    """Return seconds from the first frame to the end, and whether they are the stream's own.

    A container's length is that of its longest stream, which may be sound.
    """
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base), True
    tagged = _clock(stream.metadata.get("DURATION", ""))
    if tagged is not None and tagged > start_s:  # Matroska: the end on the container's clock
        return tagged - max(start_s, 0.0), True
    if container.duration is not None and container.duration > 0:
        return float(container.duration / 1_000_000), False
    return None, False


def transfer_name(frame: Any) -> str:
    """Return the transfer characteristic of a frame by FFmpeg's name, or an empty string."""
    return _TRANSFERS.get(int(frame.color_trc), "")


def _clock(text: str) -> float | None:
    """Return the seconds of ``"HH:MM:SS.fff"``."""
    try:
        hours, minutes, seconds = (float(part) for part in text.replace("\0", "").split(":"))
    except ValueError:
        return None
    total = 3600 * hours + 60 * minutes + seconds
    return total if math.isfinite(total) else None
