"""Building the model that a recipe names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from planish.errors import CheckpointError, ConfigError, PluginError, did_you_mean
from planish.plugins.registry import Registry
from planish.recipe.schema import ModelSpec


def build_model(spec: ModelSpec, registry: Registry, *, trust_code: bool = False) -> nn.Module:
    """Return the model of a recipe.

    Args:
        spec: The recipe's ``model`` section.
        registry: Where language models and model sources are looked up.
        trust_code: Whether ``factory`` may be imported and called.

    Raises:
        ConfigError: The name is unknown, a hyper-parameter is wrong, or code would run without ``trust_code``.
        CheckpointError: ``path`` holds no model that an installed plugin reads.
    """
    if spec.factory is not None:
        return _call_factory(spec.factory, spec.config, trust_code)
    if spec.path is not None:
        return _open(spec.path, registry, trust_code)
    return build_named(str(spec.name), spec.config, registry)


def build_named(name: str, config: Mapping[str, Any], registry: Registry) -> nn.Module:
    """Return a new model by the name of a language-model plugin or of a library's architecture.

    Raises:
        ConfigError: Nobody knows the name, or a hyper-parameter is wrong.
    """
    if ("language_model", name) in registry.entries:
        model: nn.Module = registry.load(name, "language_model")(dict(config)).build()
        return model
    known = [entry.name for entry in registry.of("language_model")]
    for entry in registry.of("model_source"):
        source = registry.load(entry.name, "model_source")()
        architectures = source.architectures()
        if name in architectures:
            built: nn.Module = source.build(name, config)
            return built
        known += architectures
    try:
        registry.find(name, "language_model")
    except PluginError as error:
        if "pip install" in str(error) or "broken" in str(error) or "blocked" in str(error):
            raise
    if not registry.of("model_source", "language_model"):
        raise ConfigError(f"model.name: {name!r} is not known and nothing builds models; pip install planish-lightning")
    raise ConfigError(f"model.name: no model or architecture named {name!r}{did_you_mean(name, known)}")


def _open(path: Path, registry: Registry, trust_code: bool) -> nn.Module:
    if not path.is_dir():
        raise ConfigError(f"model.path: {path} is not a directory; give the folder of a saved model")
    if (path / "planish.json").exists():
        from planish.checkpoint import load

        return load(path, registry=registry, trust_code=trust_code)
    for entry in registry.of("model_source"):
        source = registry.load(entry.name, "model_source")()
        if source.reads(path):
            opened: nn.Module = source.open(path)
            return opened
    raise CheckpointError(
        f"model.path: {path} holds no model that an installed plugin reads (no planish.json, no config.json)"
    )


def _call_factory(factory: str, config: Mapping[str, Any], trust_code: bool) -> nn.Module:
    if not trust_code:
        raise ConfigError(f"model.factory: {factory!r} would run Python code; add --trust-code if you trust it")
    module, colon, attribute = factory.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"model.factory: {factory!r} does not read module:function")
    try:
        made = getattr(importlib.import_module(module), attribute)(**config)
    except Exception as error:
        raise ConfigError(f"model.factory: {factory!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"model.factory: {factory!r} returned a {type(made).__name__}; expected an nn.Module")
    return made
