"""Options as frozen pydantic models, and their validation errors as sentences."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from planish.errors import ConfigError, did_you_mean

T = TypeVar("T", bound=BaseModel)


class Config(BaseModel):
    """Base of every plugin's options: frozen, and no field that it does not know.

    Give each field a description and bounds; ``planish describe NAME`` prints them, and recipes are checked by them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def validate(model: type[T], values: object, *, where: str = "") -> T:
    """Return ``model`` validated from ``values``.

    Args:
        model: The pydantic class.
        values: A mapping of field names to values, or an instance of ``model``.
        where: Path that stands before each field's name in messages, such as ``"transforms[0].config"``.

    Raises:
        ConfigError: One line per wrong field: its full path, the value found, what would be accepted, and for an
            unknown field the nearest known one.
    """
    if isinstance(values, model):
        return values
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        misspelt = {_meant(model, item) for item in found if item["type"] == "extra_forbidden"}
        # A required field under a misspelt name is one mistake, not two.
        items = [item for item in found if item["type"] != "missing" or item["loc"] not in misspelt]
        lines = [_sentence(model, item, where) for item in items]
        raise ConfigError("\n".join(lines)) from None


def _sentence(model: type[BaseModel], item: Any, where: str) -> str:
    path = _path(where, item["loc"])
    kind, found = item["type"], item.get("input")
    if kind == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        word = str(item["loc"][-1])
        hint = did_you_mean(word, known) or f"; known fields: {', '.join(sorted(known))}" if known else ""
        return f"{path}: unknown field{hint}"
    if kind == "missing":
        return f"{path}: this field is required"
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = repr(found)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return f"{path or 'value'}: {message} (found {shown})"


def _meant(model: type[BaseModel], item: Any) -> tuple[int | str, ...]:
    """Return the place of the known field that an unknown one is nearest to; empty if it resembles none."""
    *parent, word = item["loc"]
    near = get_close_matches(str(word), _fields_at(model, tuple(parent)), n=1, cutoff=0.5)
    return (*parent, *near) if near else ()


def _path(where: str, loc: tuple[int | str, ...]) -> str:
    path = where
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the (possibly nested) model that ``loc`` points to."""
    current: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = _model_in(field.annotation)
        if current is None:
            return []
    return list(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
