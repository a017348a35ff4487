"""Adding a quantized branch to a residual stream, quantized beside it for the next layer."""

from planish_kernels.block_add.op import ResidualSum, block_add

__all__ = ["ResidualSum", "block_add"]
