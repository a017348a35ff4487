"""Options that every filter made of axes has."""

from __future__ import annotations

from pydantic import Field, field_validator

from planish_egovid.clips.segmenter import SegmentConfig
from planish_egovid.policy.rule import Threshold
from planish_egovid.video.config import DecodeConfig


class ClipConfig(DecodeConfig):
    """How files become clips, and which clips are refused."""

    segment: SegmentConfig = Field(SegmentConfig(), description="how files that are given whole are cut into clips")

    @field_validator("segment")
    @classmethod
    def _needs_nothing_but_the_file(cls, segment: SegmentConfig) -> SegmentConfig:
        if segment.method == "narrations":
            raise ValueError(
                "a file alone holds no narrations; cut with 'planish egovid segment' and score what it writes"
            )
        return segment


class PipelineConfig(ClipConfig):
    """Options of a filter of several axes, beside one field for each axis."""

    early_exit: bool = Field(
        False,
        description="leave out costlier axes for clips that cheaper ones already reject; their columns are null, and "
        "skipped_axes names them",
    )
    early_exit_thresholds: dict[str, Threshold] = Field(
        {}, description="metric -> bounds by which early_exit rejects; empty: the bounds of the default policy"
    )
