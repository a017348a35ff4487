"""Products of two block-scaled operands in Triton."""

from torch import Tensor

from planish_kernels.block_matmul.op import triton_multiplies
from planish_kernels.matmul.block_scaled import register_block_scaled
from planish_kernels.runtime.capability import triton_available
from planish_kernels.runtime.support import Support


def _multiplies(a_codes: Tensor, b_codes: Tensor, block: int) -> Support:
    return triton_multiplies(a_codes, block)


register_block_scaled("triton", triton_available, _multiplies)
