"""What the motion axis measures."""

from __future__ import annotations

from planish.interfaces import Row
from pydantic import Field

UNIT = "px over 8/30 s in a picture whose sides average 512 px"


class MotionColumns(Row):
    """Motion of a clip. Magnitudes are mean over pixels, then over pairs of frames."""

    flow_mean: float | None = Field(None, description=f"mean magnitude of optical flow, {UNIT}")
    flow_0_4: float | None = Field(None, description="share of pixels that move by 0 to 4 px of that unit")
    flow_4_8: float | None = Field(None, description="share that moves by more than 4, up to 8 px")
    flow_8_12: float | None = Field(None, description="share that moves by more than 8, up to 12 px")
    flow_12_16: float | None = Field(None, description="share that moves by more than 12, up to 16 px")
    flow_16_: float | None = Field(None, description="share that moves by more than 16 px")
    flow5_center: float | None = Field(None, description="mean magnitude in the middle quarter of the picture")
    flow5_top_left: float | None = Field(None, description="mean magnitude in the top left quarter")
    flow5_top_right: float | None = Field(None, description="mean magnitude in the top right quarter")
    flow5_bottom_left: float | None = Field(None, description="mean magnitude in the bottom left quarter")
    flow5_bottom_right: float | None = Field(None, description="mean magnitude in the bottom right quarter")
    flow5_cv: float | None = Field(
        None, description="standard deviation of the five quarters over their mean: 0 where all move alike"
    )
    flow_global: float | None = Field(None, description="mean magnitude of the dominant homography, the camera's turn")
    flow_residual: float | None = Field(
        None, description="mean magnitude of what the dominant homography leaves: hands, things, parallax"
    )
    flow_valid_frac: float | None = Field(
        None, description="share of pixels that could be followed there and back; null if that was not checked"
    )
    flow_pairs: int | None = Field(None, description="pairs of frames that were measured")
    motion_backend: str | None = Field(None, description="what found the flow, such as dis-fast-chain/cv2-5.0.0")
