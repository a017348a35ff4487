"""Causal language models as LightningModules."""

from planish_lightning.language.lit_causal_lm import LitCausalLM
from planish_lightning.language.schedule import warmup_cosine

__all__ = ["LitCausalLM", "warmup_cosine"]
