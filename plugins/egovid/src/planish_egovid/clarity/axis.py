"""ClarityAxis: how clear the picture is, by planish's own measures and, where it is installed, by DOVER."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
from planish.config import Config
from planish.interfaces import Clip, Row, Stage
from pydantic import Field

from planish_egovid.axis import Axis
from planish_egovid.clarity.dover import DoverConfig, dover_request, dover_stage, prepare
from planish_egovid.clarity.proxy import Clarity
from planish_egovid.flow.one_thread import one_thread
from planish_egovid.policy.rule import Rule, Threshold
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView

CLEAR = 0.25
"""Least ``clarity_proxy`` of a clear clip. Well lit footage scores 0.67 and more; a blur of 3 px, white noise of 40
levels and, where a scene has little texture, H.264 at crf 45 score 0.21 and less."""


class ClarityConfig(Config):
    """How clarity is measured."""

    frames: int = Field(5, ge=1, le=64, description="frames that are looked at, spread evenly over the clip")
    dover: DoverConfig | None = Field(
        None, description="a DOVER that you installed (non-commercial licence); without it dover_score stays null"
    )


class ClarityColumns(Row):
    """Clarity of a clip. ``dover_score`` is DOVER's, and only DOVER's; the others are planish's own."""

    dover_score: float | None = Field(None, description="overall quality by DOVER, 0 to 1")
    dover_technical: float | None = Field(None, description="raw technical score of DOVER")
    dover_aesthetic: float | None = Field(None, description="raw aesthetic score of DOVER")
    dover_backend: str | None = Field(None, description="weights and number format of DOVER, or null")
    clarity_proxy: float | None = Field(
        None, description="sharpness times what blocks, noise and clipping leave of it, 0 to 1; not DOVER's scale"
    )
    sharpness: float | None = Field(
        None,
        description="0 to 1 by the ratio of finest to coarser detail, half at a blur of 1.5 px in a picture of at most "
        "960 px; null for a picture without detail",
    )
    noise_sigma: float | None = Field(
        None, description="standard deviation of noise in the flattest places, grey levels"
    )
    blockiness: float | None = Field(
        None, description="steps at the borders of 8-pixel blocks relative to other steps, 1 without blocks"
    )
    dark_frac: float | None = Field(None, description="share of nearly black pixels, grey level 16 and below")
    bright_frac: float | None = Field(None, description="share of nearly white pixels, grey level 250 and above")
    border_frac: float | None = Field(None, description="share of the frame that is black border throughout the clip")
    clarity_backend: str | None = Field(None, description="what measured the columns other than DOVER's")


class ClarityAxis(Axis):
    """Clarity: DOVER (EgoVid ``egovid_dover.py``) where it is installed, and a proxy from a few frames that needs no
    model.
    """

    name: ClassVar[str] = "clarity"
    summary: ClassVar[str] = "how sharp and how well exposed the picture is"
    Config: ClassVar[type[ClarityConfig]] = ClarityConfig
    Columns: ClassVar[type[ClarityColumns]] = ClarityColumns
    cost: ClassVar[float] = 0.02
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            metric="dover_score",
            column="dover_score",
            default=Threshold(min=0.35),
            low="unclear: quality too low",
            description="overall quality by DOVER, 0 to 1",
        ),
        Rule(
            metric="clarity_proxy",
            column="clarity_proxy",
            default=Threshold(min=CLEAR),
            low="unclear: blurred, noisy, blocky or badly exposed",
            description="clarity by planish's own measures, 0 to 1",
        ),
        Rule(
            metric="border_frac",
            column="border_frac",
            default=Threshold(max=0.2),
            high="unclear: black borders",
            description="share of the frame that is black border",
        ),
    )
    config: ClarityConfig

    def requests(self, clip: Clip, video: VideoInfo, duration_s: float) -> Sequence[FrameRequest]:
        """Return a few gray frames as decoded, and with DOVER up to 128 RGB ones."""
        asked = [self._request(duration_s)]
        if self.config.dover is not None:
            asked.append(dover_request(video, duration_s))
        return tuple(asked)

    def measure(self, view: ClipView) -> dict[str, Any]:
        """Measure the proxy, and put frames into the payload for DOVER."""
        if self.config.dover is not None:
            prepare(view)
        with one_thread():
            found = Clarity.of(view.frames(self._request(view.duration_s)).images)
        return {
            **dict.fromkeys(("dover_score", "dover_technical", "dover_aesthetic", "dover_backend")),
            "clarity_proxy": found.proxy,
            "sharpness": found.sharpness,
            "noise_sigma": found.noise_sigma,
            "blockiness": found.blockiness,
            "dark_frac": found.dark_frac,
            "bright_frac": found.bright_frac,
            "border_frac": found.border_frac,
            "clarity_backend": f"proxy/cv2-{cv2.__version__}",
        }

    def stage(self) -> Stage | None:
        """Return DOVER's stage, or None without it.

        Raises:
            UnsupportedError: DOVER is asked for and not installed.
        """
        return None if self.config.dover is None else dover_stage(self.config.dover)

    def _request(self, duration_s: float) -> FrameRequest:
        count = self.config.frames
        return FrameRequest(tuple((k + 0.5) / count * duration_s for k in range(count)), "gray", fit="native")
