"""VisualMotion: what a clip's flow says of the camera's motion, pair by pair, and the rotations chained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.pose.intrinsics import Intrinsics
from planish_egovid.kinematics.pose.rotation import log
from planish_egovid.kinematics.pose.subpixel import subpixel
from planish_egovid.kinematics.pose.trajectory import Trajectory
from planish_egovid.kinematics.pose.two_view import RelativePose, TwoViewConfig, relative_pose

Array = NDArray[np.float64]


class DenseFlow(Protocol):
    """Frames with dense flow from each to the next, such as a ``FlowTrack``."""

    @property
    def times_s(self) -> Array:
        """float64 [frames]."""

    @property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [frames, height, width]."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def correspondences(self, pair: int, spacing: int = 8) -> tuple[Array, Array]:
        """Return pixels [n, 2] of frame ``pair`` and where they are in the next frame."""


@dataclass(frozen=True, eq=False)
class VisualMotion:
    """The camera's motion from frame to frame, from the picture alone.

    Attributes:
        times_s: float64 [F], of the frames.
        pairs: F - 1 relative poses; None where the flow did not tell.
    """

    times_s: Array
    pairs: Sequence[RelativePose | None]

    @property
    def middles_s(self) -> Array:
        """Times half way between the frames of each pair, float64 [F - 1]."""
        return (self.times_s[1:] + self.times_s[:-1]) / 2

    @property
    def angular_velocities(self) -> Array:
        """Mean angular velocity over each pair in camera axes, float64 [F - 1, 3], rad/s; NaN where unknown."""
        found = np.full((len(self.pairs), 3), np.nan)
        for i, pair in enumerate(self.pairs):
            if pair is not None:  # x2 = R x1 turns points the other way than the camera turns
                found[i] = -log(pair.rotation) / (self.times_s[i + 1] - self.times_s[i])
        return found

    def chained(self) -> Trajectory | None:
        """Return the rotations one after the other from the identity, camera-to-world, or None if a pair is missing.

        Translations stay unknown: the length of a step is not to be had from two views.
        """
        rotation = np.eye(3)
        rotations = [rotation]
        for pair in self.pairs:
            if pair is None:
                return None
            rotation = rotation @ pair.rotation.T
            rotations.append(rotation)
        return Trajectory.of_rotations(np.stack(rotations), self.times_s)


def visual_motion(
    track: DenseFlow, intrinsics: Intrinsics, config: TwoViewConfig | None = None, *, spacing: int = 8
) -> VisualMotion:
    """Return the camera's motion between neighbouring frames of a clip.

    Args:
        track: Frames and correspondences.
        intrinsics: Lens, at the size of the pictures that the flow was computed on.
        config: Thresholds.
        spacing: Pixels from one correspondence to the next.
    """
    pairs: list[RelativePose | None] = []
    for i in range(len(track)):
        first, second, _ = subpixel(track.images[i], track.images[i + 1], *track.correspondences(i, spacing))
        pairs.append(relative_pose(first, second, intrinsics, config))
    return VisualMotion(np.asarray(track.times_s, np.float64), pairs)
