"""Reading recipes from YAML, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from planish.config import validate
from planish.errors import ConfigError, PluginError
from planish.plugins.registry import TRANSFORMS, Entry, Registry
from planish.recipe.schema import Recipe


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file.

    Args:
        path: The file.
        overrides: ``"trainer.max_steps=50"``: a dotted path, list positions as numbers, and a YAML value.

    Raises:
        ConfigError: The file is missing, not YAML, or not a recipe; an override is malformed. One line each, with the
            file's name and, for YAML errors, the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text (it does not decode as UTF-8); a recipe is a YAML file") from None
    try:
        values: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "malformed"
        raise ConfigError(f"{path} is not YAML{at}: {problem}") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise ConfigError(f"{path} holds {found}; a recipe is a mapping with the keys model, data, transforms, trainer")
    for override in overrides:
        _override(values, override)
    try:
        return validate(Recipe, values)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors."""
    return Recipe.model_json_schema()


def installed_schema(registry: Registry) -> dict[str, Any]:
    """Return the JSON schema of a recipe with the options of every plugin that ``registry`` can load.

    A plugin that cannot be loaded is left out; ``planish plugins`` says why.
    """
    schema = json_schema()
    definitions = schema["$defs"]
    transform = definitions["TransformSpec"]
    names = []
    for entry in registry.of(*TRANSFORMS):
        options = _options(registry, entry, definitions, "Config")
        if options is not None:
            names.append(entry.name)
            transform.setdefault("allOf", []).append(_when("use", entry.name, {"config": options}))
    transform["properties"]["use"]["examples"] = names
    default = schema["properties"]["runner"]["default"]
    for entry in registry.of("runner"):
        trainer = _options(registry, entry, definitions, "Config")
        data = _options(registry, entry, definitions, "Data")
        if trainer is not None and data is not None:
            rule = _when("runner", entry.name, {"trainer": trainer, "data": data})
            if entry.name != default:
                rule["if"]["required"] = ["runner"]
            schema.setdefault("allOf", []).append(rule)
    return schema


def _options(registry: Registry, entry: Entry, definitions: dict[str, Any], which: str) -> dict[str, Any] | None:
    """Return a plugin's options as a schema, with its definitions moved to those of the recipe."""
    try:
        model = getattr(registry.load(entry.name, entry.kind), which)
    except PluginError:
        return None
    prefix = f"{entry.kind}.{entry.name}.{which}"
    found: dict[str, Any] = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for name, definition in found.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = definition
    definitions[prefix] = found
    return {"$ref": f"#/$defs/{prefix}"}


def _when(key: str, value: str, then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {key: {"const": value}}}, "then": {"properties": then}}


def _override(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"override {override!r} is not KEY=VALUE, such as trainer.max_steps=50")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: the value is not YAML") from None
    here: Any = values
    *path, last = dotted.split(".")
    for part in path:
        here = _step(here, part, override)
    if isinstance(here, list):
        _step(here, last, override)
        here[int(last)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise ConfigError(f"override {override!r}: {'.'.join(path)} is not a mapping or list")


def _step(here: Any, part: str, override: str) -> Any:
    if isinstance(here, dict):
        if here.get(part) is None:
            here[part] = {}
        return here[part]
    if isinstance(here, list):
        if part.isdigit() and int(part) < len(here):
            return here[int(part)]
        raise ConfigError(f"override {override!r}: {part!r} is no position in a list of {len(here)}")
    raise ConfigError(f"override {override!r}: nothing can be set below {part!r}")
