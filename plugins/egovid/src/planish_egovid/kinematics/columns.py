"""What the kinematics axis measures."""

from __future__ import annotations

from planish.interfaces import Row
from pydantic import Field


class KinematicsColumns(Row):
    """Camera motion of a clip."""

    rotation_speed_mean_deg_s: float | None = Field(None, description="mean angular speed of the camera, degrees/s")
    rotation_speed_max_deg_s: float | None = Field(None, description="largest angular speed over 4/30 s, degrees/s")
    rotation_total_deg: float | None = Field(None, description="sum of all turns, degrees")
    translation_direction: list[float] | None = Field(
        None, description="mean unit direction of the camera's steps in its own axes (x right, y down, z forward)"
    )
    translation_direction_std_deg: float | None = Field(
        None, description="standard deviation of that mean, degrees; per-pair directions are weak evidence"
    )
    parallax_px: float | None = Field(
        None, description="median displacement over 4/30 s that rotation leaves, px at a width of 480"
    )
    pose_inlier_frac: float | None = Field(
        None, description="median share of correspondences that the two-view motion explains"
    )
    pose_valid_frac: float | None = Field(None, description="share of pairs of frames whose rotation could be found")
    path_length_m: float | None = Field(
        None, description="length of the camera's path in metres; null without an inertial recording, or if uncertain"
    )
    path_length_std_m: float | None = Field(None, description="standard deviation of that length, metres")
    imu_source: str | None = Field(None, description="inertial recording, such as 'gpmf GoPro Max'")
    imu_time_offset_s: float | None = Field(None, description="what its clock is ahead of the video's, seconds")
    imu_visual_correlation: float | None = Field(
        None, description="correlation of its and the picture's angular speed at that offset"
    )
    imu_repaired: bool | None = Field(None, description="whether its time stamps had to be repaired")
    imu_gaps: int | None = Field(None, description="pauses of more than 50 ms in it during the clip")
    rotation_source: str | None = Field(None, description="where the rotation columns come from: 'picture' or 'imu'")
    intrinsics_source: str | None = Field(
        None, description="where the intrinsics come from, such as 'intri.npy' or 'assumed fov 90 pinhole'"
    )
    kinematics_reason: str | None = Field(None, description="why columns of this axis are null, or null if none is")
    kinematics_backend: str | None = Field(None, description="what found the poses, such as cv2-essential/cv2-5.0.0")
