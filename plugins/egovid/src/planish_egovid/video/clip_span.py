"""The span of a clip: its start and end, held against its file."""

from __future__ import annotations

import math

from planish.interfaces import Clip

from planish_egovid.video.config import DecodeConfig
from planish_egovid.video.errors import ClipRangeError
from planish_egovid.video.frame_pass import FramePass
from planish_egovid.video.video_file import VideoFile


def clip_span(clip: Clip, file: VideoFile, config: DecodeConfig) -> tuple[float, float]:
    """Return a clip's start and end in seconds.

    Raises:
        ClipRangeError: They are no span of the file, or a longer one than is allowed.
    """
    start, end, length = clip.start_s, clip.end_s, file.info.duration_s
    if not (math.isfinite(start) and start >= 0):
        raise ClipRangeError(f"start_s={start} is no time in a file; expected 0 or more seconds")
    if end is not None and not end > start:
        raise ClipRangeError(f"end_s={end} is not after start_s={start}")
    if length is None or not file.duration_is_exact:
        length = _measured_end(file, start + config.max_clip_s if end is None else end)
    if start >= length:
        raise ClipRangeError(f"start_s={start} is at or after the end of the file at {length:.3f} s")
    if end is None:
        end = length
    elif end > length + 1 / file.info.fps:
        raise ClipRangeError(f"end_s={end} is after the end of the file at {length:.3f} s")
    end = min(end, length)  # less than a frame over it is rounding
    if not end - start <= config.max_clip_s:
        raise ClipRangeError(
            f"the clip lasts {end - start:.6g} s, longer than max_clip_s={config.max_clip_s:g}; cut it into clips first"
        )
    return start, end


def _measured_end(file: VideoFile, enough: float) -> float:
    """Return where a stream of unknown length ends in seconds, by reading its packets; or a time after ``enough``."""
    found = FramePass(file, (), file.zero, file.tick(enough + 1), skip=False)
    found.scan()
    return file.seconds(max(found.ends.values(), default=file.zero))
