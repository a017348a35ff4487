"""Quantizing matrices in square blocks, to nearest or stochastically."""

from planish_kernels.block_quantize.op import block_quantize, block_quantize_joined

__all__ = ["block_quantize", "block_quantize_joined"]
