"""DecodeConfig: what clips are refused, most of them before memory is spent on them."""

from __future__ import annotations

from typing import Literal

from planish.config import Config
from pydantic import Field


class DecodeConfig(Config):
    """What a clip may be. A clip that is not gets an error that says why."""

    max_clip_s: float = Field(120.0, gt=0, description="longest clip in seconds; a longer one is to be cut first")
    max_pixels: int = Field(
        1 << 26, ge=1, le=1 << 30, description="largest frame, width times height; 8192 x 8192 by default"
    )
    damaged: Literal["error", "score"] = Field(
        "error",
        description="a clip in which the decoder finds errors: 'error' gives it no scores; 'score' scores what the "
        "decoder guesses of the missing parts, which may be something else each time, and counts the frames",
    )
