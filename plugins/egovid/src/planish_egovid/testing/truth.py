"""Exact depth, flow, object mask and relative pose of a rendered clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.testing.camera import Camera
from planish_egovid.testing.hand import Hand
from planish_egovid.testing.head_motion import HeadMotion
from planish_egovid.testing.room import Room

_ROUNDING = 1e-6
"""Pixels by which a point at the picture's edge may seem to be outside."""


@dataclass(frozen=True)
class ClipTruth:
    """What is known of a rendered clip. Frames are given by index.

    Attributes:
        room: The room.
        motion: The camera's motion.
        camera: Its intrinsics.
        hand: What moves before it, or None.
        times_s: float64 [frames], seconds.
    """

    room: Room
    motion: HeadMotion
    camera: Camera
    hand: Hand | None
    times_s: NDArray[np.float64]

    def pose(self, frame: int) -> NDArray[np.float64]:
        """Return the camera-to-world pose of a frame, float64 [4, 4]."""
        return self.motion.pose(float(self.times_s[frame]))

    def relative_pose(self, first: int, second: int) -> NDArray[np.float64]:
        """Return the transform from the camera axes of ``first`` to those of ``second``, float64 [4, 4]."""
        return np.linalg.inv(self.pose(second)) @ self.pose(first)

    def object_mask(self, frame: int) -> NDArray[np.bool_]:
        """Return which pixels' centres show the hand, bool [height, width]."""
        if self.hand is None:
            return np.zeros((self.camera.height, self.camera.width), bool)
        return self.hand.covers(self.camera.rays(), float(self.times_s[frame]))

    def depth(self, frame: int) -> NDArray[np.float64]:
        """Return how far along the camera's z axis each pixel's surface is, float64 [height, width], metres."""
        pose = self.pose(frame)
        rays = self.camera.rays()
        depth, _ = self.room.distance(pose[:3, 3], np.einsum("ij,jhw->ihw", pose[:3, :3], rays))
        if self.hand is not None:
            depth[self.object_mask(frame)] = self.hand.centre(float(self.times_s[frame]))[2]
        return depth

    def flow(self, first: int, second: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return where each pixel of ``first`` goes by ``second``: π(T X) - x.

        Returns:
            float64 [height, width, 2], x and y in pixels, and bool [height, width]: whether the point is still in the
            picture and not hidden by the hand. Flow is NaN where the point has gone behind the camera.
        """
        rays, depth = self.camera.rays(), self.depth(first)
        points = rays * depth
        relative = self.relative_pose(first, second)
        moved = np.einsum("ij,jhw->ihw", relative[:3, :3], points) + relative[:3, 3][:, None, None]
        on_hand = self.object_mask(first)
        if self.hand is not None:
            start, end = (self.hand.centre(float(self.times_s[frame])) for frame in (first, second))
            moved[:, on_hand] = points[:, on_hand] + (end - start)[:, None]
        in_front = moved[2] > 1e-6
        moved[:, ~in_front] = np.nan
        target = self.camera.project(moved)
        here = self.camera.project(rays)
        last = np.array([self.camera.width - 1, self.camera.height - 1])[:, None, None]
        valid = in_front & ((target >= -_ROUNDING) & (target <= last + _ROUNDING)).all(axis=0)
        if self.hand is not None:
            hidden = self.hand.covers(moved / moved[2], float(self.times_s[second])) & ~on_hand
            valid &= ~hidden
        return np.moveaxis(target - here, 0, -1), valid
