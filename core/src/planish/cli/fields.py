"""The fields of a config, read from its JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """One option as a person reads it; fields of nested configs have dotted names."""

    name: str
    type: str
    default: str
    bounds: str
    description: str


def fields(schema: Mapping[str, Any]) -> list[Field]:
    """Return the fields that a config's JSON schema describes."""
    return list(_walk(schema, schema, ""))


def _walk(schema: Mapping[str, Any], root: Mapping[str, Any], prefix: str) -> Iterator[Field]:
    required = set(schema.get("required", ()))
    for name, given in schema.get("properties", {}).items():
        spec = _resolve(given, root)
        if "properties" in spec:
            yield from _walk(spec, root, f"{prefix}{name}.")
            continue
        default = "(required)" if name in required else json.dumps(spec.get("default"), ensure_ascii=False)
        yield Field(prefix + name, _type(spec, root), default, _bounds(spec, root), spec.get("description", ""))


def _resolve(spec: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec with its references followed; what stands beside a reference wins."""
    found = dict(spec)
    wrapped = found.get("allOf", ())
    reference = found.pop("$ref", None) or (wrapped[0].get("$ref") if len(wrapped) == 1 else None)
    if reference is None:
        return found
    return {**_resolve(root["$defs"][reference.rpartition("/")[2]], root), **found}


def _type(spec: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    spec = _resolve(spec, root)
    if "enum" in spec:
        return " | ".join(json.dumps(value) for value in spec["enum"])
    if "const" in spec:
        return json.dumps(spec["const"])
    choices = spec.get("anyOf") or spec.get("oneOf")
    if choices:
        return " | ".join(dict.fromkeys(_type(choice, root) for choice in choices))
    kind = spec.get("type", "any")
    if kind == "array":
        places = spec.get("prefixItems")
        if places:
            return f"[{', '.join(_type(place, root) for place in places)}]"
        return f"list of {_type(spec.get('items', {}), root)}"
    if kind == "object":
        values = spec.get("additionalProperties")
        return f"mapping to {_type(values, root)}" if isinstance(values, Mapping) else "mapping"
    return str(kind)


_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minLength": "length ≥ {}",
    "maxLength": "length ≤ {}",
    "minItems": "items ≥ {}",
    "maxItems": "items ≤ {}",
    "pattern": "matches {}",
}


def _bounds(spec: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    spec = _resolve(spec, root)
    if "prefixItems" in spec:
        return ""  # the type says how many items there are
    found = [text.format(_number(spec[key])) for key, text in _BOUNDS.items() if key in spec]
    for choice in spec.get("anyOf", ()):
        found += [bound for bound in [_bounds(choice, root)] if bound]
    return ", ".join(found)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
