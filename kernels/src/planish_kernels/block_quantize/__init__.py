"""Quantizing a matrix in square blocks, to nearest or stochastically."""

from planish_kernels.block_quantize.op import block_quantize

__all__ = ["block_quantize"]
