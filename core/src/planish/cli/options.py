"""Options of a plugin from a YAML file and from ``KEY=VALUE`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from planish.errors import ConfigError


def read_options(path: Path | None, settings: Sequence[str], option: str) -> dict[str, Any]:
    """Return options as a mapping that a plugin validates.

    Args:
        path: A YAML file that maps options to values; None for none.
        settings: ``"motion.backend=raft"``: dotted names of nested options, and a YAML value; they go before the file.
        option: The command-line option that they come from, for messages.

    Raises:
        ConfigError: The file is missing or no YAML mapping, or a setting is malformed.
    """
    values = {} if path is None else _read(path)
    for setting in settings:
        dotted, equals, text = setting.partition("=")
        names = dotted.split(".")
        if not equals or not all(names):
            raise ConfigError(f"{option} {setting!r} is not KEY=VALUE")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{option} {setting!r}: the value is not YAML") from None
        here = values
        for name in names[:-1]:
            below = here.get(name)
            if below is not None and not isinstance(below, dict):
                raise ConfigError(f"{option} {setting!r}: {name} is {below!r}, and nothing can be set below it")
            here[name] = dict(below or {})
            here = here[name]
        here[names[-1]] = value
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text (it does not decode as UTF-8); give a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds a {type(found).__name__}; expected options, such as 'name: value'")
    return {str(name): value for name, value in found.items()}
