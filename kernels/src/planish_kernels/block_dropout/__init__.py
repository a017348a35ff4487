"""Dropout of block-scaled operands: codes kept or zeroed, scales divided, nothing rounded but the scales."""

from planish_kernels.block_dropout.op import block_dropout

__all__ = ["block_dropout"]
