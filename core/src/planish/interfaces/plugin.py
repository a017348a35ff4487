"""Plugin: what all interfaces have in common, a name and validated options."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from planish.config import Config as PluginConfig
from planish.config import validate


class Plugin(ABC):
    """Base of the interfaces.

    Attributes:
        interface_version: Version of the interface that a class was written for; inherited from the interface.
        name: Under which the plugin is registered.
        summary: One line for ``planish plugins``.
        Config: Its options, a nested class that derives from :class:`planish.Config`.
        config: The validated options.
    """

    interface_version: ClassVar[int] = 1
    name: ClassVar[str]
    summary: ClassVar[str]
    Config: ClassVar[type[PluginConfig]]

    def __init__(self, config: Any = None, **options: Any) -> None:
        """Create the plugin.

        Args:
            config: An instance of ``Config``, or a mapping; None for the defaults.
            options: Single options, in place of ``config``.

        Raises:
            ConfigError: An option is unknown or out of bounds.
        """
        self.config = validate(self.Config, options if config is None else config, where=self.name)
