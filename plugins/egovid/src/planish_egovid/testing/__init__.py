"""Rendered rooms with known optics: clips whose depth, flow, pose and inertial readings are exact, for tests.

Axes are OpenCV's throughout. The camera looks along +z, with x to the right and y down; the world has the same axes
when the head is at rest, so that gravity points along +y. Poses are camera-to-world. Rendering needs numpy and OpenCV
only; writing files needs PyAV, and :mod:`planish_egovid.testing.fixtures` needs pytest.
"""

from __future__ import annotations

from planish_egovid.testing.camera import Camera
from planish_egovid.testing.clip import RenderedClip, render_clip
from planish_egovid.testing.encode import write_video
from planish_egovid.testing.hand import Hand
from planish_egovid.testing.head_motion import HeadMotion, Swing
from planish_egovid.testing.imu import ImuRecording, simulate_imu
from planish_egovid.testing.memory_view import view_of
from planish_egovid.testing.room import Room
from planish_egovid.testing.truth import ClipTruth

__all__ = [
    "Camera",
    "ClipTruth",
    "Hand",
    "HeadMotion",
    "ImuRecording",
    "RenderedClip",
    "Room",
    "Swing",
    "render_clip",
    "simulate_imu",
    "view_of",
    "write_video",
]
