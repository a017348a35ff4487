"""Options of the kinematics axis."""

from __future__ import annotations

from typing import Literal

from planish.config import Config
from pydantic import Field

from planish_egovid.flow.track import FlowConfig


class KinematicsConfig(Config):
    """How camera motion is measured."""

    visual: Literal["cv2-essential", "colmap", "files"] = Field(
        "cv2-essential",
        description="where poses from the picture come from. cv2-essential: two views at a time, from flow; colmap: "
        "structure from motion of the whole clip (needs pycolmap); files: extra.poses of the clip, the path of a .npy "
        "file with camera-to-world poses [F, 4, 4] of all frames, up to scale",
    )
    assume_fov_deg: float | None = Field(
        None, gt=0, lt=220, description="horizontal field of view of clips without intrinsics; null: no pose for them"
    )
    assume_lens: Literal["pinhole", "fisheye"] = Field(
        "pinhole", description="lens of clips without intrinsics; fisheye: equidistant, as action cameras are"
    )
    imu: Literal["auto", "none", "csv", "gpmf", "frames"] = Field(
        "auto",
        description="inertial recording. csv: the file that extra.imu names; gpmf: the telemetry in a GoPro file; "
        "frames: extra.gyro_x .. extra.accl_z, a value a frame; auto: the first of these that is there",
    )
    repair_imu: bool = Field(
        True, description="whether wrong time stamps are repaired, as imu_repaired then says; otherwise an error"
    )
    max_time_offset_s: float = Field(
        1.5, gt=0, le=10, description="largest offset between the clocks of video and inertial recording"
    )
    size: int = Field(480, ge=64, le=8192, description="longer side of the analysed picture in pixels; never enlarged")
    compat: Literal["strict", "official"] = Field(
        "strict",
        description="official: poses fused as EgoVid's script does, from the visual trajectory and the recording at "
        "frame rate, and frames by index; needs visual colmap or files",
    )

    def flow(self) -> FlowConfig:
        """Return the flow to ask for; the default is the one that other axes share."""
        return FlowConfig(size=self.size, sampling="frames" if self.compat == "official" else "seconds")
