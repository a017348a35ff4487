"""Thresholds that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from planish_egovid.policy.rule import Threshold

PRESETS: Mapping[str, Mapping[str, Threshold]] = MappingProxyType(
    {
        # The two numbers that third parties' notes on the EgoVid paper (arXiv 2411.08380) give; nothing else binds.
        "egovid-3p": {"flow_mean": Threshold(min=3.0, max=35.0), "ii_sim": Threshold(min=70.0)},
        # Keeps few and good clips: narrower bounds, and no clip whose motion or clarity could not be measured.
        "conservative": {
            "frames_damaged": Threshold(max=0),
            "flow_mean": Threshold(min=4.0, max=25.0, missing="reject"),
            "flow_16_": Threshold(max=0.5, missing="reject"),
            "ii_sim": Threshold(min=80.0),
            "cut_score": Threshold(max=0.3),
            "frame_order": Threshold(min=0.92),
            "freeze_frac": Threshold(max=0.1),
            "dover_score": Threshold(min=0.45),
            "clarity_proxy": Threshold(min=0.4, missing="reject"),
            "border_frac": Threshold(max=0.1),
            "ti_sim": Threshold(min_quantile=0.3),
            "egovideo_score": Threshold(min_quantile=0.3),
        },
    }
)
"""Preset -> metric -> its threshold. Metrics that a preset does not name are not bound by it."""
