"""Contract suites: one pytest class per interface, which a plugin's tests subclass.

::

    from planish.testing import SparsifierContract

    class TestDemo(SparsifierContract):
        plugin = Demo

Each method of a suite is one clause, and its docstring is the clause. What a suite needs to know beyond the class (a
model, batches, tolerances) has a default and can be overridden. Needs pytest: ``pip install 'planish[testing]'``. A
suite is imported at first use: those of data filters and engines need no torch.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("pytest") is None:
    raise ModuleNotFoundError("planish.testing needs pytest; run: pip install 'planish[testing]'", name="pytest")

if TYPE_CHECKING:
    from planish.testing.attention_contract import AttentionContract
    from planish.testing.data_filter_contract import DataFilterContract
    from planish.testing.filter_engine_contract import FilterEngineContract
    from planish.testing.language_model_contract import LanguageModelContract
    from planish.testing.plugin_contract import PluginContract
    from planish.testing.quantizer_contract import QuantizerContract
    from planish.testing.sparsifier_contract import SparsifierContract
    from planish.testing.transform_contract import TransformContract
    from planish.testing.video_model_contract import VideoModelContract

_HOME = {
    "AttentionContract": "planish.testing.attention_contract",
    "DataFilterContract": "planish.testing.data_filter_contract",
    "FilterEngineContract": "planish.testing.filter_engine_contract",
    "LanguageModelContract": "planish.testing.language_model_contract",
    "PluginContract": "planish.testing.plugin_contract",
    "QuantizerContract": "planish.testing.quantizer_contract",
    "SparsifierContract": "planish.testing.sparsifier_contract",
    "TransformContract": "planish.testing.transform_contract",
    "VideoModelContract": "planish.testing.video_model_contract",
}

__all__ = [
    "AttentionContract",
    "DataFilterContract",
    "FilterEngineContract",
    "LanguageModelContract",
    "PluginContract",
    "QuantizerContract",
    "SparsifierContract",
    "TransformContract",
    "VideoModelContract",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'planish.testing' has no attribute {name!r}")
