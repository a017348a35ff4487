"""ModelSource: a family of models that a recipe can name, beside those that plugins build themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from planish.config import Config as PluginConfig
from planish.interfaces.plugin import Plugin


class ModelSource(Plugin):
    """Builds models of a library, such as Transformers, by architecture name or from a directory."""

    interface_version: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]] = PluginConfig

    @abstractmethod
    def architectures(self) -> list[str]:
        """Return the architecture names that :meth:`build` takes; cheap."""

    @abstractmethod
    def build(self, architecture: str, config: Mapping[str, Any]) -> nn.Module:
        """Return a new, randomly initialised model.

        Raises:
            ConfigError: The architecture or a key of ``config`` is unknown, or a value is wrong.
        """

    @abstractmethod
    def reads(self, directory: Path) -> bool:
        """Say whether ``directory`` holds a model of this family; cheap."""

    @abstractmethod
    def open(self, directory: Path) -> nn.Module:
        """Return the pretrained model that ``directory`` holds, without running code from it.

        Raises:
            CheckpointError: The directory is damaged or incomplete.
        """

    @abstractmethod
    def describe(self, model: nn.Module) -> tuple[str, dict[str, Any]] | None:
        """Return ``(architecture, config)`` from which :meth:`build` makes a model of the same shape, or None."""
