"""Rendering of a clip together with what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.errors import ConfigError

from planish_egovid.testing.camera import Camera
from planish_egovid.testing.hand import Hand
from planish_egovid.testing.head_motion import HeadMotion
from planish_egovid.testing.room import Room
from planish_egovid.testing.truth import ClipTruth

_SAMPLES = 2


@dataclass(frozen=True)
class RenderedClip:
    """A rendered clip.

    Attributes:
        frames: uint8 [frames, height, width, 3], RGB.
        times_s: float64 [frames].
        truth: What is known of it.
    """

    frames: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    truth: ClipTruth


def render_clip(
    motion: HeadMotion | None = None,
    *,
    frames: int = 120,
    fps: float = 30.0,
    times_s: Sequence[float] | None = None,
    room: Room | None = None,
    camera: Camera | None = None,
    hand: Hand | None = None,
) -> RenderedClip:
    """Render what a camera sees as it moves through a room.

    Four rays are cast a pixel and averaged. The same arguments give the same bytes.

    Args:
        motion: The camera's motion; a walk with the head looking around by default.
        frames: Number of frames.
        fps: Frames a second.
        times_s: Times of the frames in seconds, instead of ``frames`` and ``fps``.
        room: The room; ``Room()`` by default.
        camera: The camera; 480 by 270 pixels and 90 degrees by default.
        hand: What moves before the camera, or None.

    Raises:
        ConfigError: There are no frames, or the motion leaves the room.
    """
    motion, room, camera = motion or HeadMotion(), room or Room(), camera or Camera()
    times = np.arange(frames) / fps if times_s is None else np.asarray(times_s, np.float64)
    if not len(times):
        raise ConfigError(f"frames is {frames}; a clip has at least one frame")
    rays = camera.rays(_SAMPLES).astype(np.float32)
    pictures = np.stack([_render(room, motion, camera, hand, rays, float(time)) for time in times])
    return RenderedClip(pictures, times, ClipTruth(room, motion, camera, hand, times))


def _render(
    room: Room, motion: HeadMotion, camera: Camera, hand: Hand | None, rays: NDArray[np.float32], time_s: float
) -> NDArray[np.uint8]:
    rotation = motion.rotation(time_s).astype(np.float32)
    turned = (rotation @ rays.reshape(3, -1)).reshape(rays.shape)
    fine = room.colours(motion.position(time_s), turned)
    if hand is not None:
        hand.paint(fine, rays, time_s)
    return cv2.resize(fine, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
