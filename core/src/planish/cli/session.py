"""What the verbs of one call share: which plugins are blocked, and the registry of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, cast

import typer

from planish.errors import ConfigError, did_you_mean
from planish.plugins.manager import PluginManager
from planish.plugins.registry import Registry

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
"""The option that every verb has."""


@dataclass
class Session:
    """One call of the command line.

    Attributes:
        block: Plugins that ``-p no:NAME`` blocks.
        debug: Whether errors show their traceback.
        given: A registry to use in place of what is installed.
    """

    block: tuple[str, ...] = ()
    debug: bool = False
    given: Registry | None = field(default=None, repr=False)

    @cached_property
    def registry(self) -> Registry:
        """What the installed plugins offer, discovered at first use.

        Raises:
            ConfigError: ``-p`` blocks a plugin that is not there.
        """
        if self.given is not None:
            return self.given
        found = PluginManager(block=self.block).discover().registry
        for name in self.block:
            if name not in found.blocked and name != "*":
                known = {entry.plugin for entry in found.of()} | set(found.broken)
                raise ConfigError(f"-p no:{name}: no plugin named {name!r} is installed{did_you_mean(name, known)}")
        return found


def session(context: typer.Context) -> Session:
    """Return the session of a running verb."""
    return cast(Session, context.find_root().obj)
