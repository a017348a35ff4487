"""Finds plugins through entry points, checks them at load, and keeps a broken one from harming the rest."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import Distribution, distributions
from typing import Any, cast

import pluggy

from planish.errors import PluginError
from planish.plugins import hookspecs
from planish.plugins.registry import KINDS, Entry, Registry

DISABLE_VARIABLE = "PLANISH_DISABLE_PLUGINS"
"""Environment variable: comma-separated names of plugins that are not loaded; ``*`` blocks all."""

HOOKS = {
    "planish_register_quantizers": "quantizer",
    "planish_register_sparsifiers": "sparsifier",
    "planish_register_attention": "attention",
    "planish_register_language_models": "language_model",
    "planish_register_video_models": "video_model",
    "planish_register_data_filters": "data_filter",
    "planish_register_filter_engines": "filter_engine",
    "planish_register_model_sources": "model_source",
    "planish_register_runners": "runner",
    "planish_register_commands": "command",
    "planish_register_benchmarks": "benchmark",
    "planish_register_diagnostics": "diagnostic",
}


class PluginManager:
    """Loads plugins into a :class:`Registry`.

    ``PluginManager().discover()`` loads what is installed; tests register objects with :meth:`register` instead.
    """

    def __init__(self, block: Iterable[str] = ()) -> None:
        """Create an empty manager.

        Args:
            block: Names of plugins to block, beside those that ``PLANISH_DISABLE_PLUGINS`` names.
        """
        named = os.environ.get(DISABLE_VARIABLE, "").split(",")
        self.disabled = {name.strip(): f"the environment variable {DISABLE_VARIABLE}" for name in named if name.strip()}
        self.disabled |= {name: f"the option -p no:{name}" for name in block}
        self.registry = Registry()
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)

    def discover(self) -> PluginManager:
        """Load every installed plugin of the entry-point group ``planish``; broken ones are kept with their error."""
        for name, (dist, entry_point) in sorted(_entry_points().items()):
            if self._block(name):
                continue
            try:
                plugin = entry_point.load()
                self._add(plugin, name, dist.metadata["Name"], dist.version)
            except Exception as error:
                self.registry.broken[name] = error
        return self

    def register(self, plugin: object, name: str, distribution: str = "(in memory)", version: str = "0") -> None:
        """Register a module or object that has hook implementations.

        Raises:
            PluginError: A hook is unknown or takes arguments that its specification lacks, or a registration is wrong.
        """
        if not self._block(name):
            self._add(plugin, name, distribution, version)

    def _block(self, name: str) -> bool:
        by = self.disabled.get(name, self.disabled.get("*"))
        if by is None:
            return False
        self._pluggy.set_blocked(name)
        self.registry.blocked[name] = by
        return True

    def _add(self, plugin: object, name: str, distribution: str, version: str) -> None:
        """Register ``plugin`` and collect what it offers, all or nothing."""
        try:
            self._pluggy.register(plugin, name)
            self._pluggy.check_pending()
            offered = self._collect(plugin, name, distribution, version)
        except pluggy.PluginValidationError as error:
            self._pluggy.unregister(name=name)
            raise PluginError(f"plugin {name!r} of {distribution}: {error}") from error
        except Exception:
            self._pluggy.unregister(name=name)
            raise
        added: list[Entry] = []
        try:
            for entry in offered:
                self.registry.add(entry)
                added.append(entry)
        except PluginError:
            for entry in added:
                del self.registry.entries[entry.kind, entry.name]
            self._pluggy.unregister(name=name)
            raise

    def _collect(self, plugin: object, name: str, distribution: str, version: str) -> list[Entry]:
        offered: list[Entry] = []
        for hook_name, kind in HOOKS.items():
            caller = getattr(self._pluggy.hook, hook_name)
            for implementation in caller.get_hookimpls():
                if implementation.plugin is not plugin:
                    continue

                def register(thing: str, target: str, summary: str, *, kind: str = kind) -> None:
                    offered.append(Entry(kind, thing, target, summary, name, distribution, version))

                implementation.function(register)
        if not offered:
            raise PluginError(
                f"plugin {name!r} of {distribution} registers nothing; "
                f"implement one of the hooks planish_register_*, decorated with @planish.hookimpl"
            )
        return offered


def _entry_points() -> dict[str, tuple[Distribution, Any]]:
    """Return entry-point name -> (distribution, entry point).

    A distribution that is on the path twice counts once, as in import. A name that two distributions use is kept for
    the second as ``name@distribution``, so that neither hides the other.
    """
    found: dict[str, tuple[Distribution, Any]] = {}
    seen: set[str] = set()
    for dist in distributions():
        name = cast("str | None", dist.metadata["Name"])
        if name is None or name in seen:
            continue
        seen.add(name)
        for entry_point in dist.entry_points:
            if entry_point.group == hookspecs.PROJECT:
                key = entry_point.name if entry_point.name not in found else f"{entry_point.name}@{name}"
                found[key] = (dist, entry_point)
    return found


@cache
def default_registry() -> Registry:
    """Return the registry of what is installed, discovered once per process."""
    return PluginManager().discover().registry


assert set(HOOKS.values()) == set(KINDS)
