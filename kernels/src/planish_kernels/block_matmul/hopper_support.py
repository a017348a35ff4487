"""Whether products of block-scaled operands run through the CUDA kernel for Hopper."""

from __future__ import annotations

from torch import Tensor

from planish_kernels.block_matmul.hopper import ALIGNMENT
from planish_kernels.block_matmul.self_test import hopper_available, self_test_name
from planish_kernels.runtime.capability import cuda_capability
from planish_kernels.runtime.self_test import passes
from planish_kernels.runtime.support import Support, no

__all__ = ["hopper_available", "hopper_multiplies"]


def hopper_multiplies(a_codes: Tensor, b_codes: Tensor, block: int) -> Support:
    """Whether the kernel takes these codes ``[m, k]`` and ``[k, n]``."""
    capability = cuda_capability(a_codes.device)
    if capability is None or capability[0] != 9:
        found = a_codes.device.type if capability is None else f"compute capability {capability[0]}.{capability[1]}"
        return no(f"wgmma is for Hopper GPUs (compute capability 9.0), this is {found}", worth_warning=False)
    if block not in (32, 64, 128):
        return no(f"the block is {block}: take 32, 64 or 128")
    (m, k), n = a_codes.shape, b_codes.shape[1]
    if k % ALIGNMENT:
        return no(f"TMA reads rows of a multiple of 16 bytes, the inner dimension is {k}", worth_warning=False)
    if min(m, n, k) == 0 or max(m, n, k) >= 2**31 - 2**10:
        return no(f"a product [{m}, {k}] @ [{k}, {n}] is out of its range", worth_warning=False)
    return passes(self_test_name(a_codes.dtype, block), a_codes.device)
