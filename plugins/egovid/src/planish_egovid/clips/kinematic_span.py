"""Which frames of a clip the released poses and IMU values belong to."""

from __future__ import annotations

from dataclasses import replace

from planish.interfaces import Clip

from planish_egovid.clips.frame_rate import rational_fps, to_seconds
from planish_egovid.clips.ids import ClipIdError, parse_clip_id

POSED_FRAMES = 120
"""Frames that have a pose: the first ones, whatever EndFrame says; so the maintainers of the data set."""


def kinematic_clip(clip: Clip, fps: float) -> Clip:
    """Return the part of a clip that its released poses belong to: frames ``[Start, Start + 120)``.

    The id stays: poses are filed under it.

    Args:
        clip: With an id of the released form, cut out of its source by ``start_s``; for a file of its own, ``start_s``
            is 0.
        fps: Frames a second of the file.

    Raises:
        ClipIdError: The id is of another form, or the clip is shorter than 120 frames and so has no poses.
        DataError: ``fps`` is not above 0.
    """
    parsed = parse_clip_id(clip.id)
    if parsed.frames < POSED_FRAMES:
        raise ClipIdError(f"clip {clip.id!r} has {parsed.frames} frames; poses need {POSED_FRAMES}")
    return replace(clip, end_s=clip.start_s + to_seconds(POSED_FRAMES, rational_fps(fps)))
