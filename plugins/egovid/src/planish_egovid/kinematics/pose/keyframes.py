"""Motion over longer baselines: flow followed from a keyframe until it shows enough parallax for a direction."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.pose.intrinsics import Intrinsics
from planish_egovid.kinematics.pose.two_view import RelativePose, TwoViewConfig, relative_pose
from planish_egovid.kinematics.pose.visual_motion import Correspondences, VisualMotion

Array = NDArray[np.float64]


class DenseFlow(Correspondences, Protocol):
    """Correspondences that come from dense flow, such as a ``FlowTrack``."""

    @property
    def forward(self) -> NDArray[np.float32]:
        """float32 [pairs, height, width, 2]."""

    def valid_mask(self, pair: int) -> NDArray[np.bool_]:
        """Return bool [height, width], which flow of a pair holds."""


def keyframe_motion(
    track: DenseFlow,
    intrinsics: Intrinsics,
    config: TwoViewConfig | None = None,
    *,
    spacing: int = 8,
    min_parallax_px: float = 8.0,
    min_survivors: float = 0.4,
    max_interval_s: float = 1.0,
) -> VisualMotion:
    """Return the motion from keyframe to keyframe.

    Between neighbouring frames parallax is often a pixel or two, and directions are wrong by ten degrees; over the
    interval in which it reaches eight pixels, by one or two. So points are followed from a keyframe, and the next one
    is where the median parallax has reached ``min_parallax_px``, or where fewer than ``min_survivors`` of the points
    are left, or after ``max_interval_s``.

    Args:
        track: The clip's flow.
        intrinsics: Lens, at the size of the pictures that the flow was computed on.
        config: Thresholds of the two-view estimate.
        spacing: Pixels from one followed point to the next.
        min_parallax_px: At 480 pixels of width.
        min_survivors: Share of the points.
        max_interval_s: Seconds.
    """
    times = np.asarray(track.times_s, np.float64)
    keys, pairs = [0], []
    while keys[-1] < len(track):
        end, pose = _from_keyframe(
            track, keys[-1], intrinsics, config, spacing, min_parallax_px, min_survivors, max_interval_s
        )
        keys.append(end)
        pairs.append(pose)
    return VisualMotion(times[keys], pairs)


def _from_keyframe(
    track: DenseFlow,
    key: int,
    intrinsics: Intrinsics,
    config: TwoViewConfig | None,
    spacing: int,
    min_parallax_px: float,
    min_survivors: float,
    max_interval_s: float,
) -> tuple[int, RelativePose | None]:
    start, now = track.correspondences(key, spacing)
    count, pose = len(start), relative_pose(start, now, intrinsics, config)
    end = key + 1
    while end < len(track):
        if pose is None or pose.parallax_px >= min_parallax_px:
            break
        if float(track.times_s[end + 1] - track.times_s[key]) > max_interval_s:
            break
        followed, kept = _followed(track, end, now)
        if np.count_nonzero(kept) < min_survivors * count:
            break
        longer = relative_pose(start[kept], followed[kept], intrinsics, config)
        if longer is None:
            break
        start, now, pose, end = start[kept], followed[kept], longer, end + 1
    return end, pose


def _followed(track: DenseFlow, pair: int, points: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Return where points [n, 2] of a frame are in the next one, and which of them could be followed."""
    height, width = track.forward.shape[1:3]
    at = points.astype(np.float32)
    flow = cv2.remap(
        track.forward[pair], at[:, None, 0], at[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[:, 0]
    nearest = np.rint(points).astype(np.intp)
    inside = (nearest >= 0).all(axis=1) & (nearest < [width, height]).all(axis=1)
    clipped = np.clip(nearest, 0, [width - 1, height - 1])
    kept = inside & track.valid_mask(pair)[clipped[:, 1], clipped[:, 0]]
    return points + flow, kept
