"""Attention: torch's own implementation, and the choice among those that plugins bring."""

from planish.attention.dispatch import AttentionDispatcher, Choice
from planish.attention.sdpa import SdpaAttention

__all__ = ["AttentionDispatcher", "Choice", "SdpaAttention"]
