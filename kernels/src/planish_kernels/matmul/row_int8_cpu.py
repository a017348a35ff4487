"""Products of INT8 rows with the transpose of 2:4 INT8 rows on a CPU: exact sums of codes, then the scales."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.formats.format import Operand, Transposed, decode
from planish_kernels.formats.row_int8 import RowInt8
from planish_kernels.formats.sparse24 import Sparse24
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.matmul.pattern import Pattern
from planish_kernels.matmul.table import MatmulKernel, register_matmul
from planish_kernels.row_rescale.reference import row_rescale_reference
from planish_kernels.runtime.support import YES, Support, no

EXACT = 1024
"""Inner dimension up to which float32 sums of products of codes are exact: 1024 * 127^2 < 2^24."""


def exact_sums(codes: Tensor, weight_codes: Tensor) -> Tensor:
    """``codes @ weight_codes.T`` of int8, exactly: float32 ``[m, n]``, or float64 for more than ``EXACT`` columns.

    A float product of integer-valued tensors, many times faster on a CPU than an integer one.

    Args:
        codes: int8 ``[m, k]``.
        weight_codes: int8 ``[n, k]``.
    """
    k = codes.shape[1]
    if k <= EXACT:
        return codes.float() @ weight_codes.float().t()
    total = torch.zeros(codes.shape[0], weight_codes.shape[0], dtype=torch.float64, device=codes.device)
    for start in range(0, k, EXACT):
        total += codes[:, start : start + EXACT].float() @ weight_codes[:, start : start + EXACT].float().t()
    return total


def _supports(a: Operand, b: Operand) -> Support:
    if a.device.type != "cpu":
        return no(f"it runs on CPU tensors, these are on {a.device.type}", worth_warning=False)
    return YES


def _multiply(a: Operand, b: Operand, out_dtype: torch.dtype | None) -> Tensor:
    assert isinstance(a, RowInt8)
    assert isinstance(b, Transposed)
    assert isinstance(b.base, RowInt8)
    sums = exact_sums(decode(a.values), decode(b.base.values))
    return row_rescale_reference(sums, a.scales, b.base.scales, a.dtype if out_dtype is None else out_dtype)


for _values, _name in ((Sparse24, "sparse24"), (Sparse24CuSparseLt, "packed24")):
    register_matmul(
        MatmulKernel(
            f"row_int8_{_name}/cpu",
            "cpu",
            Pattern(RowInt8),
            Pattern(RowInt8, transposed=True, values=_values),
            _multiply,
            supports=_supports,
        )
    )
