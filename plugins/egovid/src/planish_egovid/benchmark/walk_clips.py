"""Clips to time on: a head that looks around before a textured wall, in H.264 as cameras write it. No data needed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.interfaces import Clip

from planish_egovid.testing import Camera, HeadMotion, write_video


def walk_clips(
    folder: Path, count: int, *, width: int = 960, height: int = 540, frames: int = 120, fps: float = 30.0
) -> list[Clip]:
    """Write ``count`` different clips to ``folder`` (crf 20, a keyframe every 30 frames) and return them.

    Motion is that of the synthetic room's head, rotation only, so that a frame is one perspective warp of the wall.
    """
    camera = Camera(width, height)
    intrinsics = camera.matrix
    clips = []
    for number in range(count):
        wall = _wall(3 * width, 3 * height, number)
        motion = HeadMotion()
        start = 0.37 * number
        first = motion.rotation(start)
        pictures = []
        for index in range(frames):
            turned = first.T @ motion.rotation(start + index / fps)
            # From a pixel of this frame to one of the first, and on to the wall, whose middle the first frame shows.
            place = np.array([[1.0, 0.0, width], [0.0, 1.0, height], [0.0, 0.0, 1.0]])
            warp = place @ intrinsics @ turned @ np.linalg.inv(intrinsics)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            pictures.append(
                cv2.warpPerspective(wall, warp, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
            )
        path = folder / f"walk{number:03d}.mp4"
        write_video(path, np.stack(pictures), fps=fps)
        clips.append(Clip(path.stem, str(path), text="walks through a room"))
    return clips


def _wall(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Return a picture with detail at every size, uint8 [height, width, 3]."""
    random = np.random.default_rng([seed, 29])
    wall = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 9):
        cells = 2**octave
        drawn = random.standard_normal((max(2, cells * height // width), cells, 3)).astype(np.float32)
        wall += cv2.resize(drawn, (width, height), interpolation=cv2.INTER_CUBIC) / octave
    wall = 127 + 60 * wall / wall.std()
    return np.clip(wall, 0, 255).astype(np.uint8)
