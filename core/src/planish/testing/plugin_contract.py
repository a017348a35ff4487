"""The clauses that every plugin class keeps, whatever its kind: name, summary, options, registration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel

from planish.config import Config
from planish.errors import ConfigError, PlanishError
from planish.plugins.manager import default_registry
from planish.plugins.registry import Entry, Registry
from planish.testing.clause import refusal, require


class PluginContract:
    """What a contract suite knows about its plugin, and the clauses that all kinds share.

    Subclass the suite of your kind in a test module, under a name that begins with ``Test``, and set ``plugin``.
    """

    kind: ClassVar[str]
    """Kind under which the plugin registers; each suite sets its own."""

    plugin: ClassVar[type[Any]]
    """The class under test."""

    options: ClassVar[Mapping[str, Any]] = {}
    """Options under which the plugin is tried."""

    bad_options: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Options that must be refused, one mapping per mistake, such as ``({"bits": 9},)``."""

    installed: ClassVar[bool] = True
    """Whether the plugin is found through its entry point. False registers the class in memory."""

    @classmethod
    def registry(cls) -> Registry:
        """Return where the plugin is found by name."""
        return default_registry() if cls.installed else cls.own_registry()

    @classmethod
    def own_registry(cls) -> Registry:
        """Return a registry that holds nothing but the class under test."""
        registry = Registry()
        target = f"{cls.plugin.__module__}:{cls.plugin.__qualname__}"
        name, summary = getattr(cls.plugin, "name", "unnamed"), getattr(cls.plugin, "summary", "")
        registry.entries[cls.kind, name] = Entry(cls.kind, name, target, summary, name, "(in memory)", "0")
        return registry

    def make_plugin(self, **options: Any) -> Any:
        """Return the plugin under ``options``, or under the suite's own if none is given."""
        return self.construct(options or self.options)

    def construct(self, options: Mapping[str, Any]) -> Any:
        """Return the plugin under ``options``; name what it leaves abstract."""
        missing = sorted(getattr(self.plugin, "__abstractmethods__", ()))
        require(
            not missing,
            f"{self.plugin.__name__} leaves abstract: {', '.join(missing)}; implement {'them' if missing[1:] else 'it'}"
            f" as planish.interfaces describes",
        )
        return self.plugin(dict(options))

    # ---- clauses

    def test_name_is_a_name(self) -> None:
        """``name`` is letters, digits, ``-`` and ``_``, as users type it."""
        name = getattr(self.plugin, "name", None)
        require(
            isinstance(name, str) and name.replace("-", "_").isidentifier(),
            f"{self.plugin.__name__}.name is {name!r}; expected letters, digits, '-' and '_'",
        )

    def test_summary_is_one_line(self) -> None:
        """``summary`` is one line of at most 100 characters, for listings."""
        summary = getattr(self.plugin, "summary", None)
        require(
            isinstance(summary, str) and summary.strip() and "\n" not in summary and len(summary) <= 100,
            f"{self.plugin.__name__}.summary is {summary!r}; expected one line of at most 100 characters",
        )

    def test_name_loads_through_the_registry(self) -> None:
        """The registered name leads to this class, and to one that keeps its interface."""
        name = self.plugin.name
        try:
            found = self.registry().load(name, self.kind)
        except PlanishError as error:
            hint = " (an entry point appears when the package is installed: pip install -e .)" if self.installed else ""
            found = None
            require(False, f"{self.kind} {name!r} does not load: {error}{hint}")
        require(
            found is self.plugin,
            f"the name {name!r} loads {found!r}, not the class under test; fix the target in the hook",
        )

    def test_config_is_frozen(self) -> None:
        """Options cannot change after construction."""
        self._require_frozen(self.plugin.Config)

    def test_config_refuses_unknown_options(self) -> None:
        """An unknown option is a ConfigError that names it, not ignored."""
        word = "no_such_option_xyz"
        with refusal(ConfigError, word, when=f"given the unknown option {word!r}"):
            self.construct({**self.options, word: 1})

    def test_config_fields_are_described(self) -> None:
        """Every option has a description, which ``planish describe`` prints."""
        self._require_described(self.plugin.Config)

    def test_config_exports_a_json_schema(self) -> None:
        """Options export a JSON schema, for editors and forms."""
        self._require_schema(self.plugin.Config)

    def test_config_survives_json(self) -> None:
        """Options written to JSON and read back are equal: recipes and checkpoints hold them so."""
        config = self.make_plugin().config
        try:
            text = json.dumps(config.model_dump(mode="json"))
            again = self.plugin.Config.model_validate(json.loads(text))
        except Exception as error:
            again = None
            require(False, f"options {config!r} do not survive JSON: {type(error).__name__}: {error}")
        require(again == config, f"options {config!r} read back from JSON as {again!r}")

    def test_wrong_option_names_its_field(self) -> None:
        """An option of a wrong type, or one listed in ``bad_options``, is a ConfigError that names the field."""
        for name, field in self.plugin.Config.model_fields.items():
            if field.annotation is not Any:
                with refusal(ConfigError, name, when=f"given an object() for {name!r}"):
                    self.construct({**self.options, name: object()})
        for bad in self.bad_options:
            with refusal(ConfigError, *bad, when=f"given {dict(bad)}"):
                self.construct({**self.options, **bad})

    # ---- what several kinds demand of several schemas

    def _require_frozen(self, config: type[Config]) -> None:
        require(
            config.model_config.get("frozen") and config.model_config.get("extra") == "forbid",
            f"{config.__qualname__} must be frozen and forbid unknown fields; derive it from planish.Config and leave "
            f"model_config alone (found {dict(config.model_config)})",
        )

    def _require_described(self, schema: type[BaseModel]) -> None:
        bare = [name for name, field in schema.model_fields.items() if not field.description]
        require(not bare, f"{schema.__qualname__} has no description for {', '.join(bare)}; add Field(description=…)")

    def _require_schema(self, schema: type[BaseModel]) -> None:
        try:
            json.dumps(schema.model_json_schema())
        except Exception as error:
            require(False, f"{schema.__qualname__} exports no JSON schema: {type(error).__name__}: {error}")
