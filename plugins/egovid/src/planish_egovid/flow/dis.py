"""DIS optical flow on a processor: OpenCV's, held to one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.flow.one_thread import one_thread

Preset = Literal["ultrafast", "fast", "medium"]

_PRESETS: dict[Preset, int] = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
SMALLEST_SIDE = 64
"""Smaller pictures are padded to this: in ones that are a few patches of 8 px high, OpenCV's DIS reads past the end."""


class DisFlow:
    """Dense inverse search (Kroeger et al., ECCV 2016) with the presets of ``cv2.DISOpticalFlow``.

    A :class:`~planish_egovid.flow.backend.FlowBackend`. Finds displacements up to about 30 px at a width of 480; beyond
    that it falls short, which is what chaining is for.
    """

    pixels: Literal["gray", "rgb"] = "gray"

    def __init__(self, preset: Preset = "fast") -> None:
        """Create the search under one of OpenCV's presets."""
        self.name = f"dis-{preset}/cv2-{cv2.__version__}"
        self._search = cv2.DISOpticalFlow.create(_PRESETS[preset])

    def pair(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 [height, width, 2], the flow from ``first`` to ``second``, both uint8 [height, width]."""
        height, width = first.shape
        if min(height, width) < SMALLEST_SIDE:
            first, second = _padded(first), _padded(second)
        with one_thread():
            # No output array: OpenCV would start the search from what is in it.
            flow = self._search.calc(first, second, None)
        return np.asarray(flow[:height, :width], np.float32)

    def flows(self, clips: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the flow of each clip; see :class:`~planish_egovid.flow.backend.FlowBackend`."""
        for images in clips:
            flow = np.empty((max(len(images) - 1, 0), *images.shape[1:3], 2), np.float32)
            for i in range(len(flow)):
                flow[i] = self.pair(images[i], images[i + 1])
            yield flow


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape
    return np.pad(image, ((0, max(0, SMALLEST_SIDE - height)), (0, max(0, SMALLEST_SIDE - width))), mode="edge")
