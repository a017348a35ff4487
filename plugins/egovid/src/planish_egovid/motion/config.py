"""Options of the motion axis."""

from __future__ import annotations

from math import ceil
from typing import Literal

from planish.config import Config
from pydantic import Field

from planish_egovid.flow.dis import Preset
from planish_egovid.flow.raft_config import RaftConfig
from planish_egovid.flow.track import FlowConfig, Prewarp

LONGEST_LINK_S = 4 / 30
"""Longest step that DIS is trusted with: at 8/30 s it misses a sixth of the motion of a quick head turn."""


class MotionConfig(Config):
    """How motion is measured."""

    backend: Literal["dis", "raft"] = Field(
        "dis", description="dis: OpenCV, on a processor; raft: torchvision's RAFT, meant for a GPU"
    )
    preset: Preset = Field("fast", description="preset of DIS: accuracy against time")
    method: Literal["chain", "prewarp", "plain"] = Field(
        "chain",
        description="how DIS reaches across the stride: chain joins steps of at most 4/30 s; prewarp aligns the frames "
        "by an ORB homography first; plain does neither and falls short of quick motion",
    )
    stride_s: float = Field(8 / 30, gt=0, le=10, description="seconds between the frames of a pair")
    size: int = Field(480, ge=64, le=8192, description="longer side of the analysed picture in pixels; never enlarged")
    compat: Literal["strict", "official"] = Field(
        "strict",
        description="official: frames by index (every 8th at any rate), magnitude relative to sides padded to a "
        "multiple of 8, padding counted, flow_0_4 over (0, 5] and still pixels in no bucket, as in EgoVid's script",
    )
    raft: RaftConfig = Field(RaftConfig(), description="used if backend is raft")
    column_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        json_schema_extra={"decides_scores": False},
        description="threads that measure the flow of RAFT on a GPU while the GPU finds more; null: one for each core "
        "that the process may use, 8 at most. On a processor always one",
    )

    @property
    def links(self) -> int:
        """Steps of flow that a pair consists of."""
        if self.backend != "dis" or self.method != "chain":
            return 1
        return max(1, ceil(self.stride_s / LONGEST_LINK_S - 1e-6))

    @property
    def sampling(self) -> Literal["seconds", "frames"]:
        """How frames are picked."""
        return "frames" if self.compat == "official" else "seconds"

    def flow(self) -> FlowConfig:
        """Return the flow to ask for; the default is the one that other axes share."""
        prewarp: dict[str, Prewarp] = {"chain": "fallback", "prewarp": "always", "plain": "never"}
        return FlowConfig(
            preset=self.preset,
            size=self.size,
            stride_s=self.stride_s / self.links,
            sampling=self.sampling,
            prewarp=prewarp[self.method],
        )
