"""The group of verbs: the core's own, and those of plugins, which are imported when they are asked for."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from planish.cli.session import Session
from planish.errors import ConfigError, did_you_mean
from planish.plugins.registry import FIRST_PARTY, Registry


class Verbs(TyperGroup):
    """Lists plugins' verbs from their registration alone; imports one to run it or to show its help."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs: the core's in their order, then the plugins'."""
        return [*self.commands, *(e.name for e in _registry(ctx).of("command") if e.name not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb for listing; a plugin's is a stand-in that knows name and summary."""
        entry = _registry(ctx).entries.get(("command", cmd_name))
        if cmd_name in self.commands or entry is None:
            return super().get_command(ctx, cmd_name)
        return TyperCommand(name=cmd_name, help=entry.summary, callback=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the verb that is to run.

        Raises:
            ConfigError: No such verb.
            PluginError: Its plugin is absent, blocked, broken or cannot be imported.
        """
        name = args[0]
        registry = _registry(ctx)
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        known = self.list_commands(ctx)
        brought = name in registry.blocked or name in registry.broken or ("command", name) in FIRST_PARTY
        if name not in known and not brought:
            raise ConfigError(f"no verb named {name!r}{did_you_mean(name, known)} ('planish --help' lists them)")
        return name, load_verb(registry, name), args[1:]


def load_verb(registry: Registry, name: str) -> Any:
    """Return a plugin's verb as a command: a function whose signature typer reads, or a ``typer.Typer``.

    Raises:
        PluginError: Absent, blocked, broken, or not importable.
    """
    target = registry.load(name, "command")
    if isinstance(target, typer.Typer):
        command: Any = typer.main.get_command(target)
    else:
        single = typer.Typer(add_completion=False)
        summary = registry.find(name, "command").summary
        single.command(name=name, help=None if target.__doc__ else summary)(target)
        command = typer.main.get_command(single)
    command.name = name
    return command


def _registry(ctx: Any) -> Registry:
    found = ctx.find_root().obj
    return found.registry if isinstance(found, Session) else Session().registry
