"""Products of two block-scaled operands on Hopper, in CUDA C++."""

from planish_kernels.block_matmul.hopper_support import hopper_available, hopper_multiplies
from planish_kernels.matmul.block_scaled import register_block_scaled

register_block_scaled("cuda", hopper_available, hopper_multiplies)
