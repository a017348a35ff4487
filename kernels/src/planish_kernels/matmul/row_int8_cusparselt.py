"""Products of INT8 rows with the transpose of packed 2:4 INT8 rows on sparse tensor cores.

Both products of a linear layer with its weight are of this form: tokens by inputs, times the weight's transpose; and
gradients by outputs, times the weight, which is the transpose of its transpose, packed and scaled for itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.cusparselt.int8 import int8_multiply, int8_products_work
from planish_kernels.cusparselt.op import cusparselt_present
from planish_kernels.formats.format import Operand, Transposed
from planish_kernels.formats.row_int8 import RowInt8
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.matmul.pattern import Pattern
from planish_kernels.matmul.table import MatmulKernel, register_matmul
from planish_kernels.row_rescale import row_rescale
from planish_kernels.runtime.support import Support, no


def _supports(a: Operand, b: Operand) -> Support:
    if a.dtype is torch.float64:
        return no("sums are scaled in float32, the operands stand for float64")
    return int8_products_work(a.device)


def _multiply(a: Operand, b: Operand, out_dtype: torch.dtype | None) -> Tensor:
    assert isinstance(a, RowInt8)
    assert isinstance(a.values, Tensor)
    assert isinstance(b, Transposed)
    assert isinstance(b.base, RowInt8)
    sparse = b.base.values
    assert isinstance(sparse, Sparse24CuSparseLt)
    dtype = a.dtype if out_dtype is None else out_dtype
    # Sums reach far beyond float16, and have more digits than bfloat16, which are wanted where the product keeps them.
    wide = dtype is not torch.bfloat16
    sums = int8_multiply(sparse.packed, sparse.rows, sparse.cols, a.values, wide)
    return row_rescale(sums, a.scales, b.base.scales, dtype)


register_matmul(
    MatmulKernel(
        "row_int8_sparse24/cusparselt",
        "cusparselt",
        Pattern(RowInt8),
        Pattern(RowInt8, transposed=True, values=Sparse24CuSparseLt),
        _multiply,
        cusparselt_present,
        _supports,
    )
)
