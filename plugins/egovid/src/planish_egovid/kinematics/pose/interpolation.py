"""Poses between poses: SLERP for rotations, straight lines for centres, exact at the knots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.rotation import exp, log
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory, compose

Array = NDArray[np.float64]


def interpolate(trajectory: Trajectory, times_s: Array, *, max_beyond_s: float = 0.0) -> Trajectory:
    """Return the poses at other times.

    Rotations follow the shortest arc, camera centres the straight line between neighbouring knots; at a knot the
    knot itself is returned, bit for bit. Before the first and after the last knot the motion of the outermost
    interval goes on, for ``max_beyond_s`` at most.

    Args:
        trajectory: Two or more poses.
        times_s: float64 [n], strictly rising.
        max_beyond_s: How far outside the knots a pose may be asked for.

    Raises:
        PoseError: There are fewer than two poses, or a time lies too far outside.
    """
    if len(trajectory) < 2:
        raise PoseError("there is one pose only; interpolating needs two")
    knots, times = trajectory.times_s, np.asarray(times_s, np.float64)
    beyond = max(float(knots[0] - times.min()), float(times.max() - knots[-1]))
    if beyond > max_beyond_s + 1e-9:
        raise PoseError(
            f"a pose is asked for {beyond:.4f} s outside the {len(knots)} known ones ({knots[0]:.4f} to "
            f"{knots[-1]:.4f} s), and at most {max_beyond_s:g} s is allowed; ask within, or raise max_beyond_s"
        )
    c2w = trajectory.to(PoseConvention.CAMERA_TO_WORLD)
    interval = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, len(knots) - 2)
    share = (times - knots[interval]) / (knots[interval + 1] - knots[interval])
    start = c2w.rotations[interval]
    turn = log(np.swapaxes(start, 1, 2) @ c2w.rotations[interval + 1])
    rotations = start @ exp(share[:, None] * turn)
    from_, to = c2w.translations[interval], c2w.translations[interval + 1]
    result = Trajectory(
        compose(rotations, from_ + share[:, None] * (to - from_)),
        times,
        PoseConvention.CAMERA_TO_WORLD,
        trajectory.is_metric,
    ).to(trajectory.convention)
    nearest = np.clip(np.searchsorted(knots, times), 0, len(knots) - 1)
    at_knot = knots[nearest] == times
    result.matrices[at_knot] = trajectory.matrices[nearest[at_knot]]
    return result


def every_frame(
    poses: Array, *, step: int = 5, frames: int = 120, fps: float = 30.0
) -> tuple[Trajectory, NDArray[np.bool_]]:
    """Return poses of every ``step``-th frame, interpolated to all frames, and which of them lie between known ones.

    Pose i belongs to frame ``step * i``: the 24 poses that the released annotation was made from are those of frames
    0, 5, ..., 115. Frames after the last one continue its motion and are marked.

    Args:
        poses: Camera-to-world matrices [n, 4, 4] of frames 0, step, 2 step, ...
        step: Frames from pose to pose.
        frames: Frames of the result; at most ``step - 1`` of them after the last pose.
        fps: Frames a second.

    Returns:
        The trajectory, and bool [frames]: whether a pose is known or between known ones.

    Raises:
        PoseError: The poses are no poses, or do not reach to the end of the frames.
    """
    known = step * np.arange(len(poses))
    trajectory = Trajectory(poses, known / fps)
    result = interpolate(trajectory, np.arange(frames) / fps, max_beyond_s=(step - 1) / fps)
    return result, np.arange(frames) <= known[-1]
