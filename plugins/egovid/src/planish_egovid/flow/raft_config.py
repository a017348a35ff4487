"""Options of RAFT, apart from the model itself so that naming them needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from planish_egovid.model.placement import Placement


class RaftConfig(Placement):
    """Which RAFT (Teed and Deng, ECCV 2020) of torchvision, and how it runs."""

    model: Literal["raft_large", "raft_small"] = Field("raft_large", description="torchvision's model")
    weights: str = Field(
        "C_T_V2",
        description="name of torchvision's weights, or the path of a state dict for the model; C_T_V2 was trained anew "
        "on chairs and things, C_T_V1 holds the authors' own weights after the same two (raft-things.pth)",
    )
    updates: int = Field(20, ge=1, le=64, description="refinement steps a pair")
    pairs: int = Field(
        56,
        ge=1,
        le=1024,
        json_schema_extra={"decides_scores": False},
        description="frame pairs that go through the model at a time, on a GPU those of several clips; 56 of 960x540 "
        "take about 25 GB, and fewer are tried where memory is short",
    )
    compiled: bool | None = Field(
        None,
        description="compile the encoders and the refinement at the start, and once more when clips of another size "
        "come, whatever their sizes and number; null: on a GPU",
    )
