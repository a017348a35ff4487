"""Options that every filter made of axes has."""

from __future__ import annotations

from pydantic import Field

from planish_egovid.policy.rule import Threshold
from planish_egovid.video.config import DecodeConfig


class PipelineConfig(DecodeConfig):
    """Options of a filter of several axes, beside one field for each axis."""

    early_exit: bool = Field(
        False,
        description="leave out costlier axes for clips that cheaper ones already reject; their columns are null, and "
        "skipped_axes names them",
    )
    early_exit_thresholds: dict[str, Threshold] = Field(
        {}, description="metric -> bounds by which early_exit rejects; empty: the bounds of the default policy"
    )
