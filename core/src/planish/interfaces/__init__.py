"""The interfaces that plugins fill. Each is a small abstract class; nothing else about a plugin is public.

A name is imported at first use: data filters and engines run in workers that need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish.interfaces.attention import AttentionImpl, AttentionSpec, Support
    from planish.interfaces.data_filter import (
        Clip,
        ClipWork,
        DataFilter,
        Decision,
        Illustration,
        Row,
        Stage,
        StagedFilter,
    )
    from planish.interfaces.engine import FilterEngine, FilterJob
    from planish.interfaces.language_model import LanguageModel
    from planish.interfaces.model_source import ModelSource
    from planish.interfaces.plan import Claim, Plan, PlannedModule
    from planish.interfaces.plugin import Plugin
    from planish.interfaces.quantizer import Quantizer
    from planish.interfaces.runner import Runner, RunOptions, RunResult
    from planish.interfaces.sparsifier import Sparsifier
    from planish.interfaces.transform import ModelTransform
    from planish.interfaces.video_model import Condition, Video, VideoModel, VideoRequest

_HOME = {
    "AttentionImpl": "planish.interfaces.attention",
    "AttentionSpec": "planish.interfaces.attention",
    "Claim": "planish.interfaces.plan",
    "Clip": "planish.interfaces.data_filter",
    "ClipWork": "planish.interfaces.data_filter",
    "Condition": "planish.interfaces.video_model",
    "DataFilter": "planish.interfaces.data_filter",
    "Decision": "planish.interfaces.data_filter",
    "FilterEngine": "planish.interfaces.engine",
    "FilterJob": "planish.interfaces.engine",
    "Illustration": "planish.interfaces.data_filter",
    "LanguageModel": "planish.interfaces.language_model",
    "ModelSource": "planish.interfaces.model_source",
    "ModelTransform": "planish.interfaces.transform",
    "Plan": "planish.interfaces.plan",
    "PlannedModule": "planish.interfaces.plan",
    "Plugin": "planish.interfaces.plugin",
    "Quantizer": "planish.interfaces.quantizer",
    "Row": "planish.interfaces.data_filter",
    "RunOptions": "planish.interfaces.runner",
    "RunResult": "planish.interfaces.runner",
    "Runner": "planish.interfaces.runner",
    "Sparsifier": "planish.interfaces.sparsifier",
    "Stage": "planish.interfaces.data_filter",
    "StagedFilter": "planish.interfaces.data_filter",
    "Support": "planish.interfaces.attention",
    "Video": "planish.interfaces.video_model",
    "VideoModel": "planish.interfaces.video_model",
    "VideoRequest": "planish.interfaces.video_model",
}

__all__ = [
    "AttentionImpl",
    "AttentionSpec",
    "Claim",
    "Clip",
    "ClipWork",
    "Condition",
    "DataFilter",
    "Decision",
    "FilterEngine",
    "FilterJob",
    "Illustration",
    "LanguageModel",
    "ModelSource",
    "ModelTransform",
    "Plan",
    "PlannedModule",
    "Plugin",
    "Quantizer",
    "Row",
    "RunOptions",
    "RunResult",
    "Runner",
    "Sparsifier",
    "Stage",
    "StagedFilter",
    "Support",
    "Video",
    "VideoModel",
    "VideoRequest",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'planish.interfaces' has no attribute {name!r}")
