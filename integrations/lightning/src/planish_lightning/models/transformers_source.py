"""The architectures of Transformers, by model type (``llama``, ``gpt2``) or class name (``BertForMaskedLM``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from planish.config import Config
from planish.errors import CheckpointError, ConfigError, did_you_mean
from planish.interfaces import ModelSource
from torch import nn

_NOT_HYPERPARAMETERS = {"architectures", "dtype", "model_type", "torch_dtype", "transformers_version", "_name_or_path"}


class TransformersSource(ModelSource):
    """Builds randomly initialised models by architecture and opens local safetensors folders.

    A model type (``llama``) means that architecture's causal language model; encoders such as ``bert`` are then built
    as decoders. A class name (``BertForMaskedLM``) means that class. Nothing is downloaded and no code is run from
    a folder.
    """

    name: ClassVar[str] = "transformers"
    summary: ClassVar[str] = "architectures and saved models of Hugging Face Transformers"

    class Config(Config):
        """No options."""

    def architectures(self) -> list[str]:
        """Return model types with a causal language model, then class names."""
        from transformers.models.auto import modeling_auto

        causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        classes = {name for names in (causal, masked) for value in names.values() for name in _names(value)}
        return [*sorted(causal), *sorted(classes)]

    def build(self, architecture: str, config: Mapping[str, Any]) -> nn.Module:
        """Return a new model; float32, on the CPU, drawn from torch's generator.

        Raises:
            ConfigError: The architecture or a key is unknown, or Transformers refuses a value.
        """
        cls, config_cls = self._classes(architecture)
        known = _hyperparameters(config_cls)
        for key in config:
            if key not in known:
                raise ConfigError(f"model.config.{key}: unknown for {architecture!r}{did_you_mean(key, known)}")
        values = dict(config)
        if architecture[:1].islower() and "is_decoder" in known and self._is_encoder(architecture):
            values.setdefault("is_decoder", True)
        try:
            model: nn.Module = cls(config_cls(**values))
        except Exception as error:  # Transformers checks values in many places, with many types of exception
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"model.config: {architecture!r} cannot be built from {values}: {type(error).__name__}: {reason}"
            ) from error
        return model

    def reads(self, directory: Path) -> bool:
        """Say whether ``config.json`` there names a model type."""
        return "model_type" in _config_json(directory)

    def open(self, directory: Path) -> nn.Module:
        """Return the pretrained model of a local folder, in the dtype it was saved in; safetensors only.

        Raises:
            CheckpointError: The folder is damaged, has no safetensors, or needs code of its own.
        """
        import transformers

        values = _config_json(directory)
        named = next((n for n in values.get("architectures") or () if hasattr(transformers, n)), None)
        cls: Any = getattr(transformers, named) if named else transformers.AutoModelForCausalLM
        try:
            opened, info = cls.from_pretrained(
                directory,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"model.path: {directory} cannot be opened: {type(error).__name__}: {reason}; "
                "it must hold config.json and model.safetensors of an architecture that Transformers knows"
            ) from error
        if info["missing_keys"]:
            raise CheckpointError(
                f"model.path: {directory} lacks {len(info['missing_keys'])} tensors of {cls.__name__} "
                f"({sorted(info['missing_keys'])[0]!r}); save the model again"
            )
        model: nn.Module = opened
        return model

    def describe(self, model: nn.Module) -> tuple[str, dict[str, Any]] | None:
        """Return the architecture and the hyper-parameters that differ from its defaults; None for other models."""
        try:
            from transformers import PreTrainedModel
        except ImportError:
            return None
        if not isinstance(model, PreTrainedModel):
            return None
        config = model.config
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

        own = type(model).__name__
        name = config.model_type if own in _names(CAUSAL.get(config.model_type, ())) else own
        if name not in self.architectures():
            return None
        known = _hyperparameters(type(config))
        values = {k: v for k, v in config.to_diff_dict().items() if k in known and k not in _NOT_HYPERPARAMETERS}
        return name, json.loads(json.dumps(values))

    def _classes(self, architecture: str) -> tuple[Any, Any]:
        import transformers
        from transformers.models.auto import modeling_auto
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if architecture in causal:
            cls = getattr(transformers, _names(causal[architecture])[0])
            return cls, CONFIG_MAPPING[architecture]
        known = self.architectures()
        if architecture not in known:
            raise ConfigError(f"model.name: Transformers has no {architecture!r}{did_you_mean(architecture, known)}")
        cls = getattr(transformers, architecture)
        return cls, cls.config_class

    def _is_encoder(self, architecture: str) -> bool:
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

        return architecture in MASKED


def _names(value: str | tuple[str, ...] | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _hyperparameters(config_cls: Any) -> set[str]:
    defaults = config_cls()
    return {*defaults.to_dict(), *getattr(config_cls, "attribute_map", {})} - {"model_type", "transformers_version"}


def _config_json(directory: Path) -> dict[str, Any]:
    try:
        values = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
