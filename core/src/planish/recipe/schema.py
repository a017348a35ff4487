"""The shape of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from planish.config import Config


class ModelSpec(Config):
    """Which model to train: exactly one of ``name``, ``path`` and ``factory``."""

    name: str | None = Field(
        None, description="a language model plugin, or an architecture of an installed library, such as llama or gpt2"
    )
    path: Path | None = Field(None, description="a directory with a saved model")
    factory: str | None = Field(None, description="module:function that returns an nn.Module; needs --trust-code")
    config: dict[str, Any] = Field(default_factory=dict, description="hyper-parameters, for name and factory")

    @model_validator(mode="after")
    def _one_of(self) -> ModelSpec:
        given = [key for key in ("name", "path", "factory") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of name, path and factory, not {' and '.join(given) or 'none'}")
        if self.path is not None and self.config:
            raise ValueError("config does not go with path: a saved model has its own")
        return self


class TransformSpec(Config):
    """One entry of ``transforms``: a quantizer, a sparsifier, or another plugin that changes the model."""

    use: str = Field(description="name of the plugin, as 'planish plugins' lists it")
    targets: tuple[str, ...] | None = Field(
        None, min_length=1, description="glob patterns over module names; left out: what the plugin would choose"
    )
    config: dict[str, Any] = Field(default_factory=dict, description="the plugin's options: planish describe NAME")


class Recipe(Config):
    """A run: model, data, transforms in order, trainer, and where the report goes."""

    model: ModelSpec = Field(description="which model")
    data: dict[str, Any] = Field(description="which data; its fields are the runner's")
    transforms: tuple[TransformSpec, ...] = Field((), description="applied in this order")
    trainer: dict[str, Any] = Field(default_factory=dict, description="how to train; its fields are the runner's")
    report: Path = Field(Path("out/run"), description="folder for the report, the checkpoint and resume state")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of weights, data order and stochastic rounding")
    runner: str = Field("lightning", description="plugin that runs the recipe")
