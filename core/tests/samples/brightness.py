"""Sample data filter: luminance and size of binary PPM pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from planish.config import Config as PluginConfig
from planish.interfaces import Clip, DataFilter, Decision, Row
from pydantic import Field


def read_ppm(path: Path) -> np.ndarray:
    """Return the pixels of a binary PPM file, uint8 [height, width, 3].

    Raises:
        ValueError: It is no such file, or it is cut short.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    header = data.split(maxsplit=4)
    if len(header) < 5 or header[0] != b"P6" or header[3] != b"255":
        raise ValueError("not a binary PPM file with 8-bit channels")
    width, height = int(header[1]), int(header[2])
    size = 3 * width * height
    if width < 1 or height < 1 or len(data) < size:
        raise ValueError(f"cut short: {width} x {height} pixels need {size} bytes")
    return np.frombuffer(data[-size:], dtype=np.uint8).reshape(height, width, 3)


class Brightness(DataFilter):
    """Mean luminance (ITU-R BT.601 weights) and the shorter side."""

    name = "sample-brightness"
    summary = "luminance and size of PPM pictures"

    class Config(PluginConfig):
        """How to score."""

        stride: int = Field(1, ge=1, description="every how many pixels are looked at")

    class Policy(PluginConfig):
        """How to decide."""

        min_luminance: float = Field(0.2, ge=0, description="darker pictures are rejected, 0 to 1")
        max_luminance: float = Field(0.9, ge=0, description="brighter pictures are rejected, 0 to 1")
        min_side: int = Field(8, ge=0, description="smaller pictures are rejected, in pixels")

    class Columns(Row):
        """Scores."""

        luminance: float | None = Field(None, description="mean luminance, 0 to 1")
        side: int | None = Field(None, description="shorter side in pixels")

    def score(self, clips: Sequence[Clip]) -> list[Row]:
        return [self.score_one(clip) for clip in clips]

    def score_one(self, clip: Clip) -> Row:
        """Return the row of one clip."""
        try:
            picture = read_ppm(Path(clip.path))
        except (OSError, ValueError) as error:
            return self.Columns(clip_id=clip.id, error=str(error))
        pixels = picture[:: self.config.stride, :: self.config.stride]
        luminance = float((pixels @ np.array([0.299, 0.587, 0.114])).mean() / 255)
        return self.Columns(clip_id=clip.id, luminance=luminance, side=min(picture.shape[:2]))

    def decide(self, row: Any, policy: Any = None) -> Decision:
        policy = policy or self.Policy()
        if row.error is not None:
            return Decision(False, row.error)
        if row.luminance < policy.min_luminance:
            return Decision(False, f"luminance {row.luminance:.2f} is below {policy.min_luminance}")
        if row.luminance > policy.max_luminance:
            return Decision(False, f"luminance {row.luminance:.2f} is above {policy.max_luminance}")
        if row.side < policy.min_side:
            return Decision(False, f"its shorter side of {row.side} pixels is below {policy.min_side}")
        return Decision(True)


def write_ppm(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [height, width, 3] as a binary PPM file."""
    height, width, _ = pixels.shape
    path.write_bytes(b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes())
