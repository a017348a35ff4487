"""Choosing modules of a model by glob patterns over their qualified names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from planish.errors import CompositionError, did_you_mean


def match(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Return qualified name -> module for every module that a pattern matches, or that lies inside a match.

    ``"*.mlp"`` and ``"*.mlp.*"`` both reach ``layers.0.mlp.up_proj``. A ``*`` matches dots too, as in a shell
    pattern over the whole name.

    Raises:
        CompositionError: A pattern matches nothing; the message names the nearest module.
    """
    names = [name for name, _ in model.named_modules() if name]
    chosen: set[str] = set()
    for pattern in patterns:
        hit = {name for name in names if fnmatchcase(name, pattern)}
        if not hit:
            hint = did_you_mean(pattern, names) or f" (modules are named like {', '.join(map(repr, names[:3]))})"
            raise CompositionError(f"targets: {pattern!r} matches no module of {type(model).__name__}{hint}")
        chosen |= hit
    inside = tuple(f"{name}." for name in chosen)
    return {
        name: module for name, module in model.named_modules() if name and (name in chosen or name.startswith(inside))
    }


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` in the place of the submodule with the qualified name ``name``."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def tied_parameters(model: nn.Module) -> dict[str, list[str]]:
    """Return parameter name -> the other names under which the same tensor stands in the model."""
    by_identity: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_identity.setdefault(id(parameter), []).append(name)
    return {name: [n for n in names if n != name] for names in by_identity.values() if names[1:] for name in names}
