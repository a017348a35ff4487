"""Quantizing a 2:4 weight to INT8 by rows, for either product that a linear layer has with it, and packing it."""

from planish_kernels.row_pack24.op import row_pack24

__all__ = ["row_pack24"]
