"""Giving the integer product of two matrices of codes the scales of its rows and columns."""

from planish_kernels.row_rescale.op import row_rescale

__all__ = ["row_rescale"]
