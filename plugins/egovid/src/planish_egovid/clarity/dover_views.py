"""What DOVER looks at of a clip: which frames, and which parts of them (its ``dover.yml``, ``val-l1080p``).

DOVER draws offsets at random within fixed ranges; here they are the middles of these ranges, so that a clip always gets
the same score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from planish.errors import UnsupportedError

from planish_egovid.model.source import require

CLIP_LENGTH, INTERVAL = 32, 2
TECHNICAL_CLIPS = 3
GRID, FRAGMENT = 7, 32
SIDE = GRID * FRAGMENT
"""Both branches look at squares of 224 pixels."""


def technical_frames(frames: int) -> list[int]:
    """Return the 96 frame numbers of the technical branch: three clips of 32, every second frame, one in each third.

    Args:
        frames: Number of frames in the clip; numbers beyond wrap around, as in DOVER.
    """
    return _sampled(frames, TECHNICAL_CLIPS, CLIP_LENGTH)


def aesthetic_frames(frames: int) -> list[int]:
    """Return the 32 frame numbers of the aesthetic branch: one in each thirty-second of the clip."""
    return _sampled(frames, CLIP_LENGTH, 1)


def _sampled(frames: int, parts: int, length: int) -> list[int]:
    part = frames // parts
    room = part - length * INTERVAL
    offset = (room - 1) // 2 if room > 0 else 0
    return [(part * i + offset + INTERVAL * k) % frames for i in range(parts) for k in range(length)]


def fragments(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 7 by 7 pieces of 32 by 32 pixels, cut from a grid at full resolution and put side by side.

    Args:
        images: uint8 [frames, height, width, 3], both sides at least 32. Pictures smaller than 224 are enlarged first.

    Returns:
        uint8 [frames, 224, 224, 3].
    """
    height, width = images.shape[1:3]
    if min(height, width) < FRAGMENT:
        raise UnsupportedError(f"DOVER looks at pieces of {FRAGMENT} px, and the video is {width}x{height}")
    if min(height, width) < SIDE:
        factor = SIDE / min(height, width)
        images = _resized(images, round(width * factor), round(height * factor))
        height, width = images.shape[1:3]
    result = np.empty((len(images), SIDE, SIDE, 3), np.uint8)
    for i, top in enumerate(_starts(height)):
        for j, left in enumerate(_starts(width)):
            target = np.s_[:, i * FRAGMENT : (i + 1) * FRAGMENT, j * FRAGMENT : (j + 1) * FRAGMENT]
            result[target] = images[:, top : top + FRAGMENT, left : left + FRAGMENT]
    return result


def whole(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames resized to 224 by 224 whatever their shape, uint8 [frames, 224, 224, 3]."""
    return _resized(images, SIDE, SIDE)


def unique_frames(*wanted: Sequence[int]) -> list[int]:
    """Return all frame numbers that are wanted, once each, rising."""
    return sorted(set().union(*wanted))


def _starts(size: int) -> list[int]:
    cell = size // GRID
    offset = (cell - FRAGMENT - 1) // 2 if cell > FRAGMENT else 0
    return [min(cell * i, size - FRAGMENT) + offset for i in range(GRID)]


def _resized(images: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize bilinearly with antialiasing, as torchvision does with tensors."""
    require("PIL", "clip")
    from PIL import Image

    resized = [Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image, np.uint8) for image in resized])
