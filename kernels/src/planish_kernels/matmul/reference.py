"""Decode both operands and multiply: slow, always there, and the oracle of every other kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.formats.format import Operand, decode
from planish_kernels.matmul.pattern import ANY, DENSE
from planish_kernels.matmul.table import MatmulKernel, register_matmul


def multiply(a: Tensor, b: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """Dense ``a @ b`` with the product in ``out_dtype``; nothing is rounded to ``a``'s dtype on the way up."""
    if out_dtype is None or out_dtype == a.dtype:
        return torch.mm(a, b)
    if out_dtype.itemsize < a.dtype.itemsize:
        return torch.mm(a, b).to(out_dtype)
    if a.is_cuda and out_dtype is torch.float32 and a.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(a, b, out_dtype=out_dtype)
    return torch.mm(a.to(out_dtype), b.to(out_dtype))


def decode_and_multiply(a: Operand, b: Operand, out_dtype: torch.dtype | None = None) -> Tensor:
    """``decode(a) @ decode(b)``, ``[m, k] @ [k, n] -> [m, n]``."""
    return multiply(decode(a), decode(b), out_dtype)


register_matmul(MatmulKernel("decode and multiply", "reference", ANY, ANY, decode_and_multiply))
register_matmul(MatmulKernel("dense", "reference", DENSE, DENSE, decode_and_multiply))
