"""What is known of every clip, whatever it is scored by."""

from __future__ import annotations

from typing import Any

import av
from planish.interfaces import Row
from pydantic import Field

from planish_egovid.policy.rule import Rule, Threshold
from planish_egovid.video.view import ClipView


class ClipColumns(Row):
    """What decoding found out about a clip."""

    width: int | None = Field(None, description="upright width in square pixels, after rotation metadata")
    height: int | None = Field(None, description="upright height in pixels")
    fps: float | None = Field(None, description="average frames a second of the file")
    duration_s: float | None = Field(None, description="length of the clip in seconds")
    frames_expected: int | None = Field(None, description="frames that the clip should have by its length and rate")
    frames_actual: int | None = Field(None, description="frames of the clip that the file holds")
    frames_damaged: int | None = Field(
        None, description="decoded frames in which the decoder found errors; their missing parts are its guess"
    )
    codec: str | None = Field(None, description="video codec, such as h264")
    pixel_format: str | None = Field(
        None, description="stored pixels, such as yuv420p10le; scored after rounding to 8 bits"
    )
    transfer: str | None = Field(
        None, description="transfer characteristic, such as smpte2084; null if unstated. Never tone-mapped"
    )
    rotation: int | None = Field(None, description="clockwise degrees that the picture was turned by, as the file asks")
    variable_rate: bool | None = Field(None, description="whether the clip's frames are unevenly spaced")
    timed: bool | None = Field(None, description="whether frames carry time stamps; if not, they were counted")
    decoder: str | None = Field(None, description="what decoded the clip, such as pyav-18.1.0/ffmpeg-8.1.2")


CLIP_RULES: tuple[Rule, ...] = (
    Rule(
        metric="frames_damaged",
        column="frames_damaged",
        default=Threshold(max=0),
        high="damaged frames",
        description="decoded frames in which the decoder found errors",
    ),
)
"""What every policy asks of a clip, whatever it is scored by."""

DECODER = f"pyav-{av.__version__}/ffmpeg-{av.ffmpeg_version_info}"


def clip_values(view: ClipView) -> dict[str, Any]:
    """Return the values of :class:`ClipColumns` for a decoded clip."""
    video = view.video
    return {
        "width": video.width,
        "height": video.height,
        "fps": video.fps,
        "duration_s": view.duration_s,
        "frames_expected": view.tally.expected,
        "frames_actual": view.tally.actual,
        "frames_damaged": view.tally.damaged,
        "codec": video.codec,
        "pixel_format": video.pixel_format,
        "transfer": video.transfer or None,
        "rotation": video.rotation,
        "variable_rate": video.variable_rate,
        "timed": video.timed,
        "decoder": DECODER,
    }
