"""Everything that a clip's picture and inertial recording say about its camera's motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.interfaces import Clip

from planish_egovid.flow.track import FlowTrack
from planish_egovid.kinematics.config import KinematicsConfig
from planish_egovid.kinematics.errors import ImuError, PoseError
from planish_egovid.kinematics.fusion.fuse import FusedMotion, fuse_motion, fuse_trajectory
from planish_egovid.kinematics.fusion.mounting import estimate_mounting
from planish_egovid.kinematics.fusion.time_offset import TimeOffset, estimate_time_offset
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.pose.colmap import reconstruct
from planish_egovid.kinematics.pose.convention_check import check_convention
from planish_egovid.kinematics.pose.external import read_pose_array
from planish_egovid.kinematics.pose.intrinsics import Intrinsics, intrinsics_of
from planish_egovid.kinematics.pose.trajectory import Trajectory
from planish_egovid.kinematics.pose.visual_motion import VisualMotion, visual_motion
from planish_egovid.kinematics.recording import recording_of

Array = NDArray[np.float64]

MIN_EXPLAINED = 0.5
"""Share of the picture's rotation that a recording must explain before it is believed to belong to it."""
SAME_FILE_OFFSET_S = 0.2
"""Largest clock offset of a recording that was written together with the video: exposure and read-out only."""
COLMAP_STD = 0.01
"""Standard deviation of a COLMAP camera centre, as a share of the trajectory's extent."""


@dataclass(eq=False)
class KinematicEstimate:
    """What is known of a clip's camera motion.

    Attributes:
        reasons: Why something is not known, in the order in which it was met.
        intrinsics: At the size of the analysed pictures, or None.
        visual: Motion between neighbouring frames, or None without intrinsics.
        trajectory: Poses up to scale, from COLMAP or a file; None with the two-view backend.
        recording: The inertial recording as it was found, or None.
        imu: The recording in camera axes and on the video's clock, or None.
        offset: Offset of the clocks, or None.
        fused: The metric trajectory, or None.
    """

    reasons: list[str] = field(default_factory=list)
    intrinsics: Intrinsics | None = None
    visual: VisualMotion | None = None
    trajectory: Trajectory | None = None
    recording: ImuStream | None = None
    imu: ImuStream | None = None
    offset: TimeOffset | None = None
    fused: FusedMotion | None = None

    @property
    def rotations(self) -> Trajectory | None:
        """The picture's poses: the trajectory if there is one, else chained rotations."""
        if self.trajectory is not None:
            return self.trajectory
        return self.visual.chained() if self.visual is not None else None


def estimate_kinematics(
    track: FlowTrack, clip: Clip, fps: float, config: KinematicsConfig, *, times_s: Array | None = None
) -> KinematicEstimate:
    """Estimate a clip's camera motion from its flow and its inertial recording.

    Args:
        track: The clip's flow.
        clip: The clip; see :func:`intrinsics_of` and :func:`recording_of` for what its ``extra`` may hold.
        fps: Frames a second of the video.
        config: How.
        times_s: Times at which the fused trajectory is wanted; None for those of the analysed frames.

    Raises:
        UnsupportedError: The visual backend is not installed.
    """
    found = KinematicEstimate()
    height, width = track.images.shape[1:]
    if len(track) == 0:
        found.reasons.append("the clip has fewer than two different frames")
        return found
    try:
        found.intrinsics = intrinsics_of(
            clip, width, height, assume_fov_deg=config.assume_fov_deg, assume_lens=config.assume_lens
        )
    except PoseError as error:
        found.reasons.append(str(error))
    if found.intrinsics is not None:
        found.visual = visual_motion(track, found.intrinsics)
        _find_trajectory(found, track, clip, fps, config)
    try:
        found.recording = recording_of(clip, fps, config)
    except ImuError as error:
        found.reasons.append(str(error))
    if found.recording is not None and found.visual is not None:
        _find_imu(found, config)
    if found.imu is not None and config.compat == "strict":
        _find_fused(found, times_s)
    return found


def _find_trajectory(
    found: KinematicEstimate, track: FlowTrack, clip: Clip, fps: float, config: KinematicsConfig
) -> None:
    assert found.intrinsics is not None
    try:
        if config.visual == "colmap":
            found.trajectory = reconstruct(track.images, track.times_s, found.intrinsics).trajectory
        elif config.visual == "files":
            found.trajectory = _from_file(track, clip, fps, found.intrinsics)
    except PoseError as error:
        found.reasons.append(str(error))


def _from_file(track: FlowTrack, clip: Clip, fps: float, intrinsics: Intrinsics) -> Trajectory:
    path = clip.extra.get("poses")
    if not path:
        raise PoseError(
            f"clip {clip.id!r} names no poses; give extra.poses, the path of a .npy file, for visual: files"
        )
    trajectory = read_pose_array(Path(str(path)), fps=fps)
    shown = [int(np.argmin(np.abs(trajectory.times_s - time))) for time in track.times_s]
    pairs = [
        (shown[i], shown[i + 1], *track.correspondences(i, 8)) for i in range(len(track)) if shown[i] < shown[i + 1]
    ]
    check_convention(trajectory, pairs, intrinsics)
    return trajectory


def _find_imu(found: KinematicEstimate, config: KinematicsConfig) -> None:
    recording, visual = found.recording, found.visual
    assert recording is not None
    assert visual is not None
    same_file = recording.source.startswith(("gpmf", "frame"))
    largest = min(config.max_time_offset_s, SAME_FILE_OFFSET_S) if same_file else config.max_time_offset_s
    found.offset = estimate_time_offset(visual, recording, max_offset_s=largest)
    if found.offset is None or not found.offset.is_reliable:
        if not same_file:
            found.reasons.append(
                "the clocks of video and inertial recording could not be matched: their angular speeds do not "
                "correlate clearly at any one offset"
            )
            return
        shift = 0.0  # it was written together with the video
    else:
        shift = found.offset.offset_s
    shifted = recording.shifted(-shift)
    if not shifted.axes_are_camera:
        seen = shifted.mean_gyro(visual.times_s[:-1], visual.times_s[1:])
        mounting = estimate_mounting(visual.angular_velocities, seen)
        if not mounting.is_determined or mounting.explained < MIN_EXPLAINED:
            found.reasons.append(
                "how the inertial sensor is mounted could not be found: its angular velocity explains "
                f"{mounting.explained:.0%} of the picture's; give extra.imu_to_camera"
            )
            return
        shifted = shifted.rotated(mounting.rotation, axes_are_camera=True)
    found.imu = shifted


def _find_fused(found: KinematicEstimate, times_s: Array | None) -> None:
    assert found.imu is not None
    assert found.visual is not None
    try:
        if found.trajectory is not None:
            extent = float(np.ptp(found.trajectory.translations, axis=0).max())
            found.fused = fuse_trajectory(
                found.trajectory,
                found.imu,
                position_std=max(COLMAP_STD * extent, 1e-6),
                rotation_std_deg=0.3,
                times_s=times_s,
            )
        else:
            found.fused = fuse_motion(found.visual, found.imu, times_s=times_s)
    except ImuError as error:
        found.reasons.append(str(error))


def backend_of(estimate: KinematicEstimate, config: KinematicsConfig) -> str | None:
    """Return what found the poses, or None if nothing did."""
    if estimate.visual is None:
        return "imu" if estimate.recording is not None else None
    name = config.visual if estimate.trajectory is not None or config.visual == "cv2-essential" else "cv2-essential"
    fused = "+eskf-rts" if estimate.fused is not None else ""
    official = "+official" if config.compat == "official" else ""
    return f"{name}{fused}{official}/cv2-{cv2.__version__}"


def mean_direction(motion: VisualMotion) -> tuple[Sequence[float] | None, float | None]:
    """Return the mean unit direction of the camera's steps in its own axes, and its standard deviation in degrees.

    Each direction counts by the inverse of its variance. None where no step has one, or they cancel out.
    """
    total, weights = np.zeros(3), 0.0
    spread = 0.0
    for pair in motion.pairs:
        if pair is None or pair.translation is None or pair.translation_covariance is None:
            continue
        step = -pair.rotation.T @ pair.translation  # where the second camera is, in the first one's axes
        weight = 1 / max(float(np.trace(pair.translation_covariance)), 1e-8)
        total, weights = total + weight * step, weights + weight
        spread += 1.0
    if weights == 0:
        return None, None
    length = float(np.linalg.norm(total)) / weights
    if length < 0.5:  # steps to and fro have no common direction
        return None, None
    direction = total / np.linalg.norm(total)
    # Of each measurement, and of the steps among each other.
    measured = 1 / weights
    scatter = 2 * (1 - min(length, 1.0)) / spread
    return [float(value) for value in direction], float(np.degrees(np.sqrt(measured + scatter)))
