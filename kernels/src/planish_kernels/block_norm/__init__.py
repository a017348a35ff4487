"""LayerNorm and RMSNorm of block-scaled operands, quantized in and out."""

from planish_kernels.block_norm.op import block_norm, block_norm_backward, row_statistics

__all__ = ["block_norm", "block_norm_backward", "row_statistics"]
