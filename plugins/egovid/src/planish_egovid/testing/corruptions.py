"""Ways in which clips go bad, each with a strength that is known.

All take and return uint8 [frames, height, width, 3] (RGB) and leave their input alone.
"""

from __future__ import annotations

from io import BytesIO

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from planish.errors import ConfigError

from planish_egovid.testing.encode import write_video

Video = NDArray[np.uint8]


def gaussian_blur(frames: Video, sigma_px: float) -> Video:
    """Blur with a standard deviation in pixels; 0 changes nothing."""
    if sigma_px <= 0:
        return frames.copy()
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101) for frame in frames])


def compress(frames: Video, crf: int = 40) -> Video:
    """Pass the frames through H.264 (4:2:0) at a constant rate factor and back.

    Raises:
        ConfigError: Height or width is odd.
    """
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ConfigError(f"frames are {frames.shape[2]}x{frames.shape[1]}; H.264 with 4:2:0 chroma needs even sides")
    file = BytesIO()
    write_video(file, frames, crf=crf, gop=len(frames))
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def freeze(frames: Video, start: int, count: int) -> Video:
    """Repeat frame ``start`` for the ``count`` frames after it."""
    frozen = frames.copy()
    frozen[start + 1 : start + 1 + count] = frames[start]
    return frozen


def shuffle_segment(frames: Video, start: int, count: int, *, seed: int = 0) -> Video:
    """Put ``count`` frames from ``start`` in random order."""
    shuffled = frames.copy()
    order = np.random.default_rng([seed, 13]).permutation(count)
    shuffled[start : start + count] = frames[start : start + count][order]
    return shuffled


def hard_cut(frames: Video, other: Video, at: int) -> Video:
    """Go on with ``other``'s frames from frame ``at``; both have the same shape."""
    return np.concatenate([frames[:at], other[at:]])


def exposure_jump(frames: Video, at: int, gain: float) -> Video:
    """Make all frames from ``at`` brighter by a factor, or darker if it is below 1."""
    jumped = frames.astype(np.float32)
    jumped[at:] *= gain
    return np.clip(np.rint(jumped), 0, 255).astype(np.uint8)


def noise(frames: Video, sigma: float, *, seed: int = 0) -> Video:
    """Add white noise with a standard deviation in grey levels, fresh in every frame."""
    random = np.random.default_rng([seed, 17])
    noisy = np.empty_like(frames)
    for index, frame in enumerate(frames):
        added = frame + sigma * random.standard_normal(frame.shape, np.float32)
        noisy[index] = np.clip(np.rint(added), 0, 255)
    return noisy


def letterbox(frames: Video, share: float) -> Video:
    """Black out bars at the top and bottom that together cover ``share`` of the height."""
    boxed = frames.copy()
    bar = round(frames.shape[1] * share / 2)
    if bar:
        boxed[:, :bar] = 0
        boxed[:, -bar:] = 0
    return boxed
