"""FlowBackend: what finds the optical flow between frames, whatever it runs on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from planish_egovid.flow.raft_config import RaftConfig
from planish_egovid.model.source import require


@runtime_checkable
class FlowBackend(Protocol):
    """Finds the optical flow between neighbouring frames, for a batch of clips at a time.

    A model on a GPU is free to batch pairs of several clips and to encode each frame once; what it gives for a clip
    must not depend on which clips stand beside it.

    Attributes:
        name: Model and weights or library, such as ``"dis-fast/cv2-5.0.0"``; stored with the scores.
        pixels: ``"gray"`` if it takes uint8 [frames, height, width], ``"rgb"`` for [frames, height, width, 3].
    """

    name: str
    pixels: Literal["gray", "rgb"]

    def flows(self, clips: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the flow of each clip, in order.

        Args:
            clips: Each uint8 [frames, height, width] or [frames, height, width, 3]; sizes may differ between clips,
                and a clip may have fewer than two frames.

        Yields:
            float32 [max(frames - 1, 0), height, width, 2]: (x, y) displacement of each pixel of frame i to frame
            i + 1, in pixels of the frames given, on frames as given (padding that a model needs is cut off again).
        """
        ...


def raft_backend(config: RaftConfig, *, keeps_padding: bool = False) -> FlowBackend:
    """Return RAFT on the device that ``config`` names.

    Args:
        config: Model, weights, device.
        keeps_padding: Whether the flow of pixels that were padded to multiples of 8 is given as well.

    Raises:
        UnsupportedError: torchvision is not installed, the weights cannot be had, or the device is not there.
    """
    require("torchvision", "raft")
    module = import_module("planish_egovid.flow.raft")
    backend: FlowBackend = module.RaftFlow(config, keeps_padding=keeps_padding)
    return backend
