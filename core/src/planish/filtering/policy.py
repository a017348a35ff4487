"""A filter's policy: read from a YAML file, a preset, or both, and written so that it reads back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from planish.config import Config, validate
from planish.errors import ConfigError, DataError, did_you_mean
from planish.interfaces.data_filter import DataFilter

PRESET = "preset"
"""Key of a policy file that names the preset which the file's other values are laid over."""


def read_policy(data_filter: DataFilter, path: Path | None = None, preset: str | None = None) -> Config:
    """Return a filter's policy.

    The file's values are laid over the preset's, or over the defaults of ``Policy``, nested fields one by one:
    ``flow_mean: {max: 30}`` changes the upper bound alone, and ``flow_mean: {min: null}`` takes the lower one away.

    Args:
        data_filter: The filter that will decide.
        path: YAML file that maps fields of ``Policy`` to values, with an optional key ``preset``; None for none.
        preset: Name of a preset of the filter; None for the one that the file names, or none.

    Raises:
        ConfigError: An unknown preset or field, a value out of bounds, or two different presets.
        DataError: The file cannot be read or is no YAML mapping.
    """
    values = {} if path is None else _read(path)
    named = values.pop(PRESET, None)
    if named is not None and preset is not None and named != preset:
        raise ConfigError(f"{path}: preset is {named!r} here and {preset!r} on the command line; give one of them")
    base = preset_values(data_filter, preset if named is None else named, where="" if named is None else f"{path}: ")
    return validate(data_filter.Policy, _laid_over(base, values), where="policy" if path is None else f"{path}: policy")


def preset_values(data_filter: DataFilter, preset: str | None, *, where: str = "") -> dict[str, Any]:
    """Return every field's value under a preset of a filter, or under the defaults for None, as JSON values.

    Args:
        data_filter: The filter.
        preset: Name of one of its presets.
        where: What stands before the message, such as the file's name.

    Raises:
        ConfigError: The filter has no preset of this name.
    """
    defaults: dict[str, Any] = data_filter.Policy().model_dump(mode="json")
    if preset is None:
        return defaults
    if preset not in list(data_filter.presets):  # a file may name something that cannot be hashed
        known = ", ".join(sorted(data_filter.presets)) or "it has none"
        hint = did_you_mean(str(preset), data_filter.presets)
        raise ConfigError(f"{where}preset: {data_filter.name} has no preset {preset!r}{hint} (presets: {known})")
    values = dict(data_filter.presets[preset])
    policy = validate(data_filter.Policy, values, where=f"{data_filter.name} preset {preset!r}")
    return policy.model_dump(mode="json")


def policy_text(policy: Config) -> str:
    """Return a policy as YAML that :func:`read_policy` reads back."""
    return yaml.safe_dump(policy.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read the policy {path}: {reason}; give a YAML file") from None
    except yaml.YAMLError as error:
        raise DataError(f"the policy {path} is no YAML: {' '.join(str(error).split())}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DataError(f"the policy {path} holds a {type(found).__name__}; expected fields, such as 'name: value'")
    return {str(name): value for name, value in found.items()}


def _laid_over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in values.items():
        below = merged.get(name)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[name] = _laid_over(below, value) if both else value  # type: ignore[arg-type]
    return merged
