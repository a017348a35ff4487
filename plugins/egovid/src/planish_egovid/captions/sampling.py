"""Which frames a captioning model sees."""

from __future__ import annotations

import numpy as np

from planish_egovid.video.request import VideoInfo

MOST_FRAMES = 16


def caption_times(video: VideoInfo, duration_s: float, most: int = MOST_FRAMES) -> tuple[float, ...]:
    """Return the times of one frame a second, or of ``most`` frames evenly from first to last if that is fewer.

    Each time points at the middle of a frame. EgoVid's caption script samples likewise.

    Args:
        video: The stream.
        duration_s: Length of the clip in seconds.
        most: Most frames.
    """
    half = 0.5 / video.fps if video.fps > 0 else 0.0
    last = max(duration_s - 2 * half, 0.0)
    seconds = np.arange(int(last + 1e-6) + 1, dtype=np.float64)
    if len(seconds) > most:
        seconds = np.linspace(0.0, last, most)
    return tuple(float(time) + half for time in seconds)
