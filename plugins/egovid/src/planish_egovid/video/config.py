"""Limits of decoding: what is refused before memory is spent on it."""

from __future__ import annotations

from planish.config import Config
from pydantic import Field


class DecodeConfig(Config):
    """What a clip may be. A clip beyond a limit gets an error that names the limit."""

    max_clip_s: float = Field(120.0, gt=0, description="longest clip in seconds; a longer one is to be cut first")
    max_pixels: int = Field(
        1 << 26, ge=1, le=1 << 30, description="largest frame, width times height; 8192 x 8192 by default"
    )
