"""LanguageModel: an architecture that follows the Hugging Face causal-LM conventions."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from planish.config import Config as PluginConfig
from planish.interfaces.plugin import Plugin


class LanguageModel(Plugin):
    """Builds a causal language model.

    The module that :meth:`build` returns follows the conventions of Hugging Face causal LMs:
    ``forward(input_ids=…, attention_mask=None, labels=None, past_key_values=None, use_cache=None)`` returns an object
    with ``logits`` [batch, length, vocab_size], with ``loss`` (mean next-token cross-entropy) where labels are given,
    and with ``past_key_values`` where ``use_cache`` is set; ``generate(input_ids, max_new_tokens=…)`` continues.
    """

    interface_version: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]]
    """Hyper-parameters of the architecture; must have a field ``vocab_size``."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return a new, randomly initialised model on the CPU, in float32, drawing only from torch's generator."""
