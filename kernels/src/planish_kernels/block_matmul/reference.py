"""Block-scaled products in plain torch, block by block of the inner dimension as the kernels sum them."""

from __future__ import annotations

import torch
from torch import Tensor


def block_matmul_reference(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None
) -> Tensor:
    """``sum over blocks k of (A_k scale) (B_k scale) (a_codes_k @ b_codes_k)`` in float32, ``[m, n]``, bias added.

    A product of two blocks of int8 codes is exact in float32 (at most 128 * 127^2 < 2^24).
    """
    (m, inner), n = a_codes.shape, b_codes.shape[1]
    total = torch.zeros((m, n), dtype=torch.float32, device=a_codes.device)
    for number, start in enumerate(range(0, inner, block)):
        left = a_codes[:, start : start + block].to(torch.float32)
        right = b_codes[start : start + block].to(torch.float32)
        rows = a_scales[:, number].repeat_interleave(block)[:m, None]
        cols = b_scales[number].repeat_interleave(block)[None, :n]
        total += (left @ right) * (rows * cols)
    return total if bias is None else total + bias.to(torch.float32)
