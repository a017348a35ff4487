"""Contract suites: one pytest class per interface, which a plugin's tests subclass.

::

    from planish.testing import SparsifierContract

    class TestDemo(SparsifierContract):
        plugin = Demo

Each method of a suite is one clause, and its docstring is the clause. What a suite needs to know beyond the class (a
model, batches, tolerances) has a default and can be overridden. Needs pytest: ``pip install 'planish[testing]'``.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("pytest") is None:
    raise ModuleNotFoundError("planish.testing needs pytest; run: pip install 'planish[testing]'", name="pytest")

from planish.testing.attention_contract import AttentionContract
from planish.testing.data_filter_contract import DataFilterContract
from planish.testing.language_model_contract import LanguageModelContract
from planish.testing.plugin_contract import PluginContract
from planish.testing.quantizer_contract import QuantizerContract
from planish.testing.sparsifier_contract import SparsifierContract
from planish.testing.transform_contract import TransformContract
from planish.testing.video_model_contract import VideoModelContract

__all__ = [
    "AttentionContract",
    "DataFilterContract",
    "LanguageModelContract",
    "PluginContract",
    "QuantizerContract",
    "SparsifierContract",
    "TransformContract",
    "VideoModelContract",
]
