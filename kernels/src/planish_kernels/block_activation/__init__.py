"""Activations of block-scaled operands, quantized in and out: GELU, SiLU, and their gated forms."""

from planish_kernels.block_activation.op import block_activation, block_activation_backward

__all__ = ["block_activation", "block_activation_backward"]
