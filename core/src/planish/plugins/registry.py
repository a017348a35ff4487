"""What plugins have registered, by kind and name; the classes are imported at first use and checked then."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, field
from typing import Any

from planish.errors import PluginError, did_you_mean

INTERFACES: dict[str, str] = {
    "quantizer": "planish.interfaces.quantizer:Quantizer",
    "sparsifier": "planish.interfaces.sparsifier:Sparsifier",
    "attention": "planish.interfaces.attention:AttentionImpl",
    "language_model": "planish.interfaces.language_model:LanguageModel",
    "video_model": "planish.interfaces.video_model:VideoModel",
    "data_filter": "planish.interfaces.data_filter:DataFilter",
    "filter_engine": "planish.interfaces.engine:FilterEngine",
    "model_source": "planish.interfaces.model_source:ModelSource",
    "runner": "planish.interfaces.runner:Runner",
}
"""Kind of plugin class -> the abstract class that it fills."""

FUNCTIONS = ("command", "benchmark", "diagnostic")
"""Kinds that are plain functions."""

KINDS = (*INTERFACES, *FUNCTIONS)
TRANSFORMS = ("quantizer", "sparsifier")
"""Kinds that a recipe's ``transforms`` may name."""

FIRST_PARTY: dict[tuple[str, str], str] = {
    ("quantizer", "flatquant"): "planish-flatquant",
    ("quantizer", "jetfire"): "planish-jetfire",
    ("quantizer", "onebit"): "planish-onebit",
    ("sparsifier", "pretrain24"): "planish-pretrain24",
    ("sparsifier", "vnm"): "planish-vnm",
    ("attention", "fastattention"): "planish-fastattention",
    ("language_model", "subllm"): "planish-subllm",
    ("data_filter", "egovid"): "planish-egovid",
    ("filter_engine", "ray"): "planish-ray",
    ("video_model", "egodreamer"): "planish-egovid",
    ("video_model", "freemask"): "planish-freemask",
    ("video_model", "s3dnerf"): "planish-s3dnerf",
    ("runner", "lightning"): "planish-lightning",
    ("command", "kernels"): "planish-kernels",
}
"""What this project publishes: names that are answered with an install line where they are absent."""


@dataclass(frozen=True)
class Entry:
    """One registered thing: its kind, name, ``module:attribute`` target, and the distribution that brought it."""

    kind: str
    name: str
    target: str
    summary: str
    plugin: str
    distribution: str
    version: str

    def load(self) -> Any:
        """Import and return the target.

        Raises:
            PluginError: The module or attribute does not exist, or its import fails; the cause is chained.
        """
        module, _, attribute = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.distribution} {self.version} could not be imported from "
                f"{self.target!r}: {type(error).__name__}: {error}; reinstall or update {self.distribution}"
            ) from error
        return found


@dataclass
class Registry:
    """Everything that the loaded plugins offer. Holds no module-level state: each manager owns one."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    broken: dict[str, BaseException] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            PluginError: The kind is unknown, the name or target is malformed, or another plugin holds the name.
        """
        if entry.kind not in KINDS:
            raise PluginError(f"unknown kind {entry.kind!r}; one of {', '.join(KINDS)}")
        if not entry.name.replace("-", "_").isidentifier():
            raise PluginError(
                f"{entry.plugin} registers a {entry.kind} under the name {entry.name!r}; "
                "a name is letters, digits, '-' and '_'"
            )
        module, colon, attribute = entry.target.partition(":")
        if not (module and colon and attribute):
            raise PluginError(
                f"{entry.plugin} registers {entry.kind} {entry.name!r} with target {entry.target!r}; "
                "a target reads 'module:attribute'"
            )
        other = self.entries.get((entry.kind, entry.name))
        if other is not None:
            raise PluginError(
                f"two plugins register a {entry.kind} named {entry.name!r}: {other.distribution} ({other.target}) and "
                f"{entry.distribution} ({entry.target}); block one with PLANISH_DISABLE_PLUGINS={entry.plugin}"
            )
        self.entries[entry.kind, entry.name] = entry

    def of(self, *kinds: str) -> list[Entry]:
        """Return the entries of the given kinds (all if none is given), by kind and name."""
        chosen = [e for e in self.entries.values() if not kinds or e.kind in kinds]
        return sorted(chosen, key=lambda e: (KINDS.index(e.kind), e.name))

    def absent(self) -> list[tuple[str, str, str]]:
        """Return ``(kind, name, distribution)`` of what this project publishes and is not installed here."""
        return [(kind, name, dist) for (kind, name), dist in FIRST_PARTY.items() if (kind, name) not in self.entries]

    def find(self, name: str, *kinds: str) -> Entry:
        """Return the entry named ``name`` among ``kinds`` (any kind if none is given).

        Raises:
            PluginError: No such name. The message has the nearest known name, the install line of a first-party
                plugin, or why the plugin is blocked or broken.
        """
        kinds = kinds or KINDS
        found = [self.entries[kind, name] for kind in kinds if (kind, name) in self.entries]
        if len(found) == 1:
            return found[0]
        if found:
            raise PluginError(f"{name!r} is ambiguous: {', '.join(e.kind for e in found)}; name the kind as well")
        raise PluginError(self._why_not(name, kinds))

    def load(self, name: str, *kinds: str) -> Any:
        """Return the class or function named ``name``, imported and checked against its interface.

        Raises:
            PluginError: Unknown, not importable, or not what its interface demands.
        """
        entry = self.find(name, *kinds)
        target = entry.load()
        if entry.kind in INTERFACES:
            check_class(entry, target)
        elif not callable(target):
            raise PluginError(f"{entry.kind} {name!r} of {entry.distribution}: {entry.target} is not callable")
        return target

    def _why_not(self, name: str, kinds: tuple[str, ...]) -> str:
        what = " or ".join(kind.replace("_", " ") for kind in kinds) if len(kinds) <= 3 else "plugin"
        if name in self.blocked:
            return f"{what} {name!r} is blocked by {self.blocked[name]}; unblock it to use it"
        if name in self.broken:
            error = self.broken[name]
            return (
                f"{what} {name!r} is broken: {type(error).__name__}: {error}; 'planish plugins --traceback' shows where"
            )
        for kind in kinds:
            if (kind, name) in FIRST_PARTY:
                return f"{what} {name!r} is not installed; run: pip install {FIRST_PARTY[kind, name]}"
        installed = sorted({e.name for e in self.of(*kinds)})
        published = {n for (k, n) in FIRST_PARTY if k in kinds}
        listed = f" (installed: {', '.join(installed)})" if installed else " (none is installed)"
        return f"no {what} named {name!r}{did_you_mean(name, {*installed, *published})}{listed}"


def check_class(entry: Entry, target: Any) -> None:
    """Check a plugin class against the interface of its kind.

    Raises:
        PluginError: Not a class, not a subclass, abstract methods left, no name, summary or Config, a name that is
            not the registered one, or an interface version that this core does not serve.
    """
    from planish.config import Config

    module, _, attribute = INTERFACES[entry.kind].partition(":")
    interface: Any = getattr(importlib.import_module(module), attribute)
    who = f"{entry.kind} {entry.name!r} of {entry.distribution} ({entry.target})"
    if not (inspect.isclass(target) and issubclass(target, interface)):
        raise PluginError(f"{who} is no subclass of planish.interfaces.{interface.__name__}; derive it from that class")
    missing = sorted(getattr(target, "__abstractmethods__", ()))
    if missing:
        raise PluginError(f"{who} leaves abstract: {', '.join(missing)}; implement {'them' if missing[1:] else 'it'}")
    for attribute in ("name", "summary"):
        value = getattr(target, attribute, None)
        if not isinstance(value, str) or not value:
            raise PluginError(f"{who} has no {attribute}; set the class attribute {attribute!r} to a string")
    named: Any = target
    if named.name != entry.name:
        raise PluginError(f"{who} calls itself {named.name!r}; make the class attribute and the registration agree")
    config = getattr(target, "Config", None)
    if not (inspect.isclass(config) and issubclass(config, Config)):
        raise PluginError(f"{who} has no Config; add a nested class that derives from planish.Config")
    version = getattr(target, "interface_version", None)
    if version != interface.interface_version:
        raise PluginError(
            f"{who} was written for version {version} of {interface.__name__}; this planish serves version "
            f"{interface.interface_version}: update {entry.distribution}"
        )
