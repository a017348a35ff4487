"""Quantizing each row of a matrix to INT8 with a scale of its own, to nearest or stochastically."""

from planish_kernels.row_quantize.op import row_quantize

__all__ = ["row_quantize"]
