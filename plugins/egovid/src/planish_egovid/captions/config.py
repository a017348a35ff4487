"""Options of captioning, and the backend that they name."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

from planish.config import Config
from pydantic import Field, field_validator

from planish_egovid.captions.backend import CaptionBackend
from planish_egovid.captions.endpoint import EndpointCaptions, EndpointConfig
from planish_egovid.captions.sampling import MOST_FRAMES
from planish_egovid.captions.template import TemplateCaptions
from planish_egovid.captions.validation import MOST_WORDS
from planish_egovid.model.placement import Placement


class TransformersCaptionConfig(Placement):
    """Which models of transformers write."""

    model: str = Field(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        min_length=1,
        description="folder or hub id of a model that takes videos, such as llava-hf/LLaVA-NeXT-Video-7B-hf",
    )
    text_model: str | None = Field(
        None, min_length=1, description="language model that condenses, such as Qwen/Qwen2.5-7B-Instruct; null: model"
    )
    describe_tokens: int = Field(1024, ge=1, description="longest description, in tokens")
    condense_tokens: int = Field(128, ge=1, description="longest phrase, in tokens")


class CaptionConfig(Config):
    """How clips are captioned."""

    backend: Literal["template", "transformers", "endpoint"] = Field(
        "template",
        description="template: verb and noun, or the narration, as they are; transformers: models in this process; "
        "endpoint: a server that speaks OpenAI's chat completions",
    )
    transformers: TransformersCaptionConfig = Field(
        TransformersCaptionConfig(), description="used if backend is transformers"
    )
    endpoint: EndpointConfig = Field(EndpointConfig(), description="used if backend is endpoint")
    frames: int = Field(MOST_FRAMES, ge=1, le=256, description="most frames a model sees; one a second if fewer")
    size: int = Field(512, ge=32, le=4096, description="longer side of a frame in pixels; never enlarged")
    words: int = Field(MOST_WORDS, ge=1, le=200, description="most words of the action phrase")
    verbs: tuple[str, ...] = Field(
        (), description="further verbs, in their base form, that a phrase may begin with; many everyday ones are known"
    )
    verb_column: str = Field("verb_cls", description="where a clip's 'extra' holds the class of the verb")
    noun_column: str = Field("noun_cls", description="where a clip's 'extra' holds the class of the noun")

    @field_validator("verbs")
    @classmethod
    def _lower(cls, verbs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(verb.lower() for verb in verbs)


def caption_backend(config: CaptionConfig) -> CaptionBackend:
    """Return the backend that the options name.

    Raises:
        ConfigError: The endpoint's options are incomplete.
        UnsupportedError: A package, the weights or the device are missing.
    """
    if config.backend == "template":
        return TemplateCaptions()
    if config.backend == "endpoint":
        return EndpointCaptions(config.endpoint, config.words)
    # By name, because it imports torch.
    module: Any = import_module("planish_egovid.captions.transformers_captions")
    backend: CaptionBackend = module.TransformersCaptions.load(config.transformers, config.words)
    return backend
