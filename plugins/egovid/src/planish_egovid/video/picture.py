"""Pictures: a decoded frame as a small gray or RGB array, converted once for everyone who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from planish_egovid.video.errors import ClipDecodeError
from planish_egovid.video.request import Fit, FrameRequest, Pixels
from planish_egovid.video.video_file import FAILURES, VideoFile

# Area averaging does not alias; the flags make every processor round alike.
_SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_UNSPECIFIED = 2
_BT709_FROM = 720  # lines from which players take unmarked video for BT.709


@dataclass(frozen=True)
class Look:
    """How a frame is wanted: the part of a request that is not its times."""

    pixels: Pixels
    size: int
    fit: Fit

    @classmethod
    def of(cls, request: FrameRequest) -> Look:
        """Return the look that a request asks for; native ones are alike whatever their ``size``."""
        return cls(request.pixels, 0 if request.fit == "native" else request.size, request.fit)


class Pictures:
    """Converts the frames of one file."""

    def __init__(self, file: VideoFile) -> None:
        """Convert frames of ``file``."""
        self._file = file
        self._reformatters: dict[Look, VideoReformatter] = {}

    def scale(self, look: Look) -> float:
        """Return pixels of the picture a pixel of the upright video, along the height."""
        return self._resized(look)[1] / self._file.info.height

    def shape(self, look: Look) -> tuple[int, ...]:
        """Return the shape of a picture's array."""
        width, height = self._resized(look)
        if look.fit == "cover":
            width = height = look.size
        return (height, width) if look.pixels == "gray" else (height, width, 3)

    def convert(self, frame: Any, look: Look) -> NDArray[np.uint8]:
        """Return a frame as uint8 [height, width] or [height, width, 3], upright.

        Raises:
            ClipDecodeError: swscale cannot convert it, such as a frame of a size that damage made up.
        """
        width, height = self._resized(look)
        turned = self._file.orientation
        stored = (height, width) if turned.swaps_sides else (width, height)
        reformatter = self._reformatters.setdefault(look, VideoReformatter())
        try:
            small = reformatter.reformat(
                frame,
                *stored,
                format="gray" if look.pixels == "gray" else "rgb24",
                src_colorspace=_colorspace(frame),
                interpolation=_SCALING,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        except FAILURES as error:
            del self._reformatters[look]
            what = f"{frame.width} x {frame.height} pixels, {frame.format.name}"
            raise ClipDecodeError(f"a frame of {what} cannot be converted: {self._file.log.reason(error)}") from None
        image = turned.apply(np.asarray(small.to_ndarray(), np.uint8))
        if look.fit == "cover":
            top, left = (height - look.size) // 2, (width - look.size) // 2
            image = np.ascontiguousarray(image[top : top + look.size, left : left + look.size])
        return image

    def _resized(self, look: Look) -> tuple[int, int]:
        """Return the upright width and height that a frame is scaled to."""
        info = self._file.info
        if look.fit == "native":
            width, height = self._file.stored_size
            return (height, width) if self._file.orientation.swaps_sides else (width, height)
        side = max(info.width, info.height) if look.fit == "inside" else min(info.width, info.height)
        factor = min(look.size / side, 1.0) if look.fit == "inside" else look.size / side
        width, height = max(round(info.width * factor), 1), max(round(info.height * factor), 1)
        return (max(width, look.size), max(height, look.size)) if look.fit == "cover" else (width, height)


def _colorspace(frame: Any) -> int | None:
    """Return the matrix of an unmarked frame, as players guess it; None where the frame says it."""
    if frame.colorspace != _UNSPECIFIED:
        return None
    return int(Colorspace.ITU709 if frame.height >= _BT709_FROM else Colorspace.ITU601)
