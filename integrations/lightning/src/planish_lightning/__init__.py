"""planish under Lightning: callbacks that apply plugins in any Trainer, language modelling, and ``planish run``.

Nothing here takes part in a run that does not name it: no entry point adds callbacks to a Trainer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish_lightning.callbacks import Compose, Quantize, ReplaceAttention, Sparsify
    from planish_lightning.clips import FilteredClips
    from planish_lightning.language import LitCausalLM
    from planish_lightning.text_data import TextData, TextDataModule
    from planish_lightning.video import LitVideoModel

_LAZY = {
    "Compose": "planish_lightning.callbacks",
    "FilteredClips": "planish_lightning.clips",
    "LitCausalLM": "planish_lightning.language",
    "LitVideoModel": "planish_lightning.video",
    "Quantize": "planish_lightning.callbacks",
    "ReplaceAttention": "planish_lightning.callbacks",
    "Sparsify": "planish_lightning.callbacks",
    "TextData": "planish_lightning.text_data",
    "TextDataModule": "planish_lightning.text_data",
}

__all__ = [
    "Compose",
    "FilteredClips",
    "LitCausalLM",
    "LitVideoModel",
    "Quantize",
    "ReplaceAttention",
    "Sparsify",
    "TextData",
    "TextDataModule",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use, so that listing plugins imports neither torch nor Lightning."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'planish_lightning' has no attribute {name!r}")
