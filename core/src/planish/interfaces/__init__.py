"""The interfaces that plugins fill. Each is a small abstract class; nothing else about a plugin is public."""

from planish.interfaces.attention import AttentionImpl, AttentionSpec, Support
from planish.interfaces.data_filter import Clip, DataFilter, Decision, Row
from planish.interfaces.language_model import LanguageModel
from planish.interfaces.model_source import ModelSource
from planish.interfaces.plan import Claim, Plan, PlannedModule
from planish.interfaces.plugin import Plugin
from planish.interfaces.quantizer import Quantizer
from planish.interfaces.runner import Runner, RunOptions, RunResult
from planish.interfaces.sparsifier import Sparsifier
from planish.interfaces.transform import ModelTransform
from planish.interfaces.video_model import Condition, Video, VideoModel, VideoRequest

__all__ = [
    "AttentionImpl",
    "AttentionSpec",
    "Claim",
    "Clip",
    "Condition",
    "DataFilter",
    "Decision",
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
    "Support",
    "Video",
    "VideoModel",
    "VideoRequest",
]
