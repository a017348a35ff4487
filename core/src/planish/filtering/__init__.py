"""Filtering clips: from files to scores, from scores to decisions, for any data filter.

A name is imported at first use: workers need no Parquet, and reading scores needs no engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish.filtering.identity import FilterIdentity
    from planish.filtering.run_record import RunRecord
    from planish.filtering.store import ScoreStore

_HOME = {
    "FilterIdentity": "planish.filtering.identity",
    "RunRecord": "planish.filtering.run_record",
    "ScoreStore": "planish.filtering.store",
}

__all__ = ["FilterIdentity", "RunRecord", "ScoreStore"]


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'planish.filtering' has no attribute {name!r}")
