"""Transformer blocks, found by structure and confirmed by running them small."""

from planish_jetfire.structure.find import NotTaken, find_blocks
from planish_jetfire.structure.transformer_block import NormKind, TransformerBlock

__all__ = ["NormKind", "NotTaken", "TransformerBlock", "find_blocks"]
