"""Products of block-scaled operands, dense or quantized again on the way out."""

from planish_kernels.block_matmul.op import block_matmul, block_matmul_quantized

__all__ = ["block_matmul", "block_matmul_quantized"]
