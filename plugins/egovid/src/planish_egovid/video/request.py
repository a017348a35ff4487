"""What an axis asks of a clip's pixels, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = Literal["gray", "rgb"]
Fit = Literal["inside", "cover", "native"]


@dataclass(frozen=True)
class FrameRequest:
    """Frames at given times, in a given size.

    Attributes:
        times_s: Seconds from the clip's start, rising. A time gets the frame that is on screen then: the last one whose
            presentation time is not after it. A time at or after the clip's end gets the clip's last frame.
        pixels: ``"gray"``: uint8 [frames, height, width]; ``"rgb"``: uint8 [frames, height, width, 3].
        size: Pixels that ``fit`` refers to; ignored for ``"native"``.
        fit: ``"inside"``: the longer side becomes ``size``, aspect kept, never enlarged; ``"cover"``: the shorter side
            becomes ``size`` and the middle square is cut out; ``"native"``: the stored pixels, turned upright and
            otherwise as decoded, whatever their aspect ratio.
    """

    times_s: tuple[float, ...]
    pixels: Pixels = "gray"
    size: int = 480
    fit: Fit = "inside"


@dataclass(frozen=True)
class Frames:
    """Decoded frames.

    Attributes:
        images: uint8 [frames, height, width] or [frames, height, width, 3] (RGB), upright (rotation applied).
        times_s: float64 [frames], presentation times of the frames themselves, seconds from the clip's start.
        scale: Pixels of ``images`` a pixel of the upright video, along the height.
    """

    images: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    scale: float


@dataclass(frozen=True)
class VideoInfo:
    """What a container says of its video stream, and what was found of it.

    Attributes:
        width: Upright pixels, after rotation metadata and sample aspect ratio.
        height: Upright pixels.
        fps: Average frames a second.
        frames: Frames in the stream as far as the container tells, or None.
        duration_s: Seconds, or None.
        rotation: Clockwise degrees that were applied: 0, 90, 180 or 270.
        codec: Such as ``"h264"``.
        pixel_format: Such as ``"yuv420p10le"``. Frames of more than 8 bits are rounded to 8 by swscale.
        variable_rate: Whether frame times are uneven by more than a tenth of a frame; known once a clip is decoded.
        mirrored: Whether left and right were swapped, before the rotation.
        transfer: Transfer characteristic as coded, such as ``"bt709"``, ``"smpte2084"`` (PQ) or ``"arib-std-b67"``
            (HLG); empty if the stream does not say. High dynamic range is not tone-mapped: pixels are the coded signal.
        timed: Whether frames carry presentation times; if not, they are counted from the file's beginning at ``fps``.
    """

    width: int
    height: int
    fps: float
    frames: int | None
    duration_s: float | None
    rotation: int = 0
    codec: str = ""
    pixel_format: str = ""
    variable_rate: bool = False
    mirrored: bool = False
    transfer: str = ""
    timed: bool = True
