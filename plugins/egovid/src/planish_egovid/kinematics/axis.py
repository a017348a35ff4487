"""KinematicsAxis: how the camera moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from planish.interfaces import Clip, Illustration, Row

from planish_egovid.axis import Axis
from planish_egovid.flow.track import FlowTrack, flow_requests, flow_track
from planish_egovid.kinematics.columns import KinematicsColumns
from planish_egovid.kinematics.config import KinematicsConfig
from planish_egovid.kinematics.estimate import (
    KinematicEstimate,
    backend_of,
    estimate_kinematics,
    mean_direction,
)
from planish_egovid.kinematics.pose.colmap import require_pycolmap
from planish_egovid.kinematics.trajectory_plot import trajectory_plot
from planish_egovid.policy.rule import Rule, Threshold
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView

MAX_PATH_STD = 0.5
"""A path whose length is less certain than this share of itself is not reported."""


class KinematicsAxis(Axis):
    """Camera motion from optical flow between frames 4/30 s apart, and in metres from an inertial recording.

    Not EgoVid's method (ParticleSfM and a Kalman filter at frame rate), and better documented than it; its columns are
    planish's own. Rotation needs the camera's intrinsics, or a field of view that may be assumed.
    """

    name: ClassVar[str] = "kinematics"
    summary: ClassVar[str] = "how the camera moves: rotation, path, IMU"
    Config: ClassVar[type[KinematicsConfig]] = KinematicsConfig
    Columns: ClassVar[type[KinematicsColumns]] = KinematicsColumns
    cost: ClassVar[float] = 0.4
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            metric="rotation_speed_max_deg_s",
            column="rotation_speed_max_deg_s",
            default=Threshold(),
            low="camera turns too little",
            high="camera turns too fast",
            unit="deg/s",
            description="largest angular speed of the camera over 4/30 s, degrees/s",
        ),
        Rule(
            metric="path_length_m",
            column="path_length_m",
            default=Threshold(),
            low="camera path too short",
            high="camera path too long",
            unit="m",
            description="length of the camera's path in metres, known with an inertial recording only",
        ),
        Rule(
            metric="pose_inlier_frac",
            column="pose_inlier_frac",
            default=Threshold(),
            low="camera motion unclear",
            description="share of the flow that one camera motion explains",
        ),
        Rule(
            metric="imu_visual_correlation",
            column="imu_visual_correlation",
            default=Threshold(),
            low="inertial recording does not fit the picture",
            description="correlation of the angular speeds of recording and picture",
        ),
    )
    config: KinematicsConfig

    def __init__(self, config: KinematicsConfig) -> None:
        """Create the axis.

        Raises:
            UnsupportedError: ``visual`` is ``"colmap"`` and pycolmap is not installed.
        """
        super().__init__(config)
        if config.visual == "colmap":
            require_pycolmap()

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        """Return one request: the gray frames that flow is computed on."""
        return flow_requests(video, duration_s, self.config.flow())

    def measure(self, view: ClipView) -> dict[str, Any]:
        """Measure rotation, direction, and with an inertial recording, path."""
        track = flow_track(view, self.config.flow())
        return columns_of(self._estimate(view, track), self.config, track)

    def illustrate(self, view: ClipView, row: Row) -> list[Illustration]:
        """Return the path from above, and the angles of picture and inertial sensor over time."""
        track = flow_track(view, self.config.flow())
        plot = trajectory_plot(self._estimate(view, track))
        return [] if plot is None else [plot]

    def _estimate(self, view: ClipView, track: FlowTrack) -> KinematicEstimate:
        return view.shared(
            ("kinematics", self.config.model_dump_json()),
            lambda: estimate_kinematics(track, view.clip, view.video.fps, self.config),
        )


def columns_of(estimate: KinematicEstimate, config: KinematicsConfig, track: FlowTrack) -> dict[str, Any]:
    """Return the columns of an estimate; what is not known is None."""
    values: dict[str, Any] = dict.fromkeys(
        name for name in KinematicsColumns.model_fields if name not in Row.model_fields
    )
    values["kinematics_backend"] = backend_of(estimate, config)
    reasons = list(estimate.reasons)
    if estimate.intrinsics is not None:
        values["intrinsics_source"] = estimate.intrinsics.source
    recording = estimate.recording
    if recording is not None:
        values["imu_source"] = recording.source
        values["imu_repaired"] = recording.is_repaired
        end = float(track.times_s[-1])
        values["imu_gaps"] = sum(1 for start, stop in recording.gaps_s if stop > 0 and start < end)
    if estimate.visual is not None:
        pairs = [pair for pair in estimate.visual.pairs if pair is not None]
        values["pose_valid_frac"] = len(pairs) / len(estimate.visual.pairs)
        if pairs:
            values["parallax_px"] = float(np.median([pair.parallax_px for pair in pairs]))
            values["pose_inlier_frac"] = float(np.median([pair.inlier_frac for pair in pairs]))
        else:
            reasons.append("the flow holds nowhere, so no rotation could be found")
        _rotation(values, estimate.visual.angular_velocities, np.diff(estimate.visual.times_s), "picture")
        direction, std = mean_direction(estimate.visual)
        values["translation_direction"], values["translation_direction_std_deg"] = direction, std
    elif recording is not None:
        seen = recording.mean_gyro(track.times_s[:-1], track.times_s[1:])
        _rotation(values, seen, np.diff(track.times_s), "imu")
    if estimate.offset is not None:
        values["imu_visual_correlation"] = estimate.offset.correlation
        if estimate.offset.is_reliable:
            values["imu_time_offset_s"] = estimate.offset.offset_s
    if estimate.fused is not None:
        length, std_m = estimate.fused.path_length_m, estimate.fused.path_length_std_m
        values["path_length_std_m"] = std_m
        if std_m <= MAX_PATH_STD * length:
            values["path_length_m"] = length
        else:
            reasons.append(
                f"the path's length is not known well enough: {length:.2f} m with a deviation of {std_m:.2f} m"
            )
    values["kinematics_reason"] = "; ".join(reasons) or None
    return values


def _rotation(values: dict[str, Any], rates: np.ndarray, intervals: np.ndarray, source: str) -> None:
    speeds = np.degrees(np.linalg.norm(rates, axis=1))
    known = np.isfinite(speeds)
    if not known.any():
        return
    turned = speeds[known] * intervals[known]
    values["rotation_speed_mean_deg_s"] = float(turned.sum() / intervals[known].sum())
    values["rotation_speed_max_deg_s"] = float(speeds[known].max())
    values["rotation_total_deg"] = float(turned.sum())
    values["rotation_source"] = source
