"""planish: plugins that make PyTorch models cheaper to train and run.

Three verbs: :func:`plan` shows what a method would change in a model and why not the rest, :func:`apply` does it in
place, :func:`finish` makes the deployable form. :func:`save` and :func:`load` keep a transformed model on disk.
Importing this package imports no torch; the verbs do, at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from planish.errors import (
    CheckpointError,
    CompositionError,
    ConfigError,
    DataError,
    PlanishError,
    PluginError,
    UnsupportedError,
    WorkError,
)
from planish.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from planish.api import apply, finish, plan
    from planish.checkpoint import load, save
    from planish.config import Config

__version__ = "0.1.0"

_LAZY = {
    "Config": "planish.config",
    "apply": "planish.api",
    "finish": "planish.api",
    "plan": "planish.api",
    "load": "planish.checkpoint",
    "save": "planish.checkpoint",
}

__all__ = [
    "CheckpointError",
    "CompositionError",
    "Config",
    "ConfigError",
    "DataError",
    "PlanishError",
    "PluginError",
    "UnsupportedError",
    "WorkError",
    "__version__",
    "apply",
    "finish",
    "hookimpl",
    "load",
    "plan",
    "save",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use, so that ``import planish`` stays quick."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'planish' has no attribute {name!r}")
