"""Pytest fixtures of rendered clips, made once a run.

Use them from a ``conftest.py``::

    from planish_egovid.testing.fixtures import *
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from planish_egovid.testing.camera import Camera
from planish_egovid.testing.clip import RenderedClip, render_clip
from planish_egovid.testing.encode import write_video
from planish_egovid.testing.hand import Hand
from planish_egovid.testing.head_motion import HeadMotion
from planish_egovid.testing.room import Room

__all__ = ["hand_clip", "room_clip", "room_clip_120", "room_video", "room_video_120"]


@lru_cache(maxsize=16)
def rendered(
    motion: HeadMotion,
    frames: int = 32,
    fps: float = 30.0,
    width: int = 480,
    height: int = 270,
    seed: int = 0,
    hand: Hand | None = None,
) -> RenderedClip:
    """Return a rendered clip, kept for the next test that asks for the same; do not write into its frames."""
    clip = render_clip(motion, frames=frames, fps=fps, camera=Camera(width, height), room=Room(seed), hand=hand)
    clip.frames.flags.writeable = False
    return clip


@pytest.fixture(scope="session")
def room_clip() -> RenderedClip:
    """Return 32 frames at 480 by 270, 30 fps, of a walk with the head looking around."""
    return rendered(HeadMotion())


@pytest.fixture(scope="session")
def hand_clip() -> RenderedClip:
    """Return the same walk with a hand that moves before the camera."""
    return rendered(HeadMotion(), hand=Hand())


@pytest.fixture(scope="session")
def room_clip_120() -> RenderedClip:
    """Return 120 frames at 320 by 180, 30 fps, of the walk: four seconds."""
    return rendered(HeadMotion(), 120, 30.0, 320, 180)


@pytest.fixture(scope="session")
def room_video(room_clip: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an mp4 of ``room_clip``."""
    path = tmp_path_factory.mktemp("room") / "walk.mp4"
    write_video(path, room_clip.frames)
    return path


@pytest.fixture(scope="session")
def room_video_120(room_clip_120: RenderedClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an mp4 of ``room_clip_120``."""
    path = tmp_path_factory.mktemp("room") / "walk-120.mp4"
    write_video(path, room_clip_120.frames)
    return path
