"""Products of two block-scaled operands in each of the four positions that a linear layer needs."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from planish_kernels.block_matmul.op import block_matmul, parts, triton_multiplies
from planish_kernels.formats.block_float8 import BlockFloat8
from planish_kernels.formats.block_int8 import BlockInt8
from planish_kernels.formats.format import Format, Operand
from planish_kernels.matmul.pattern import Pattern
from planish_kernels.matmul.table import MatmulKernel, register_matmul
from planish_kernels.runtime.capability import triton_available
from planish_kernels.runtime.support import Support, no


def _supports(a: Operand, b: Operand) -> Support:
    assert isinstance(a, Format)
    assert isinstance(b, Format)
    (codes, _, left), (_, _, right) = parts(a), parts(b)
    if left.block != right.block:
        return no(f"a has blocks of {left.block}, b of {right.block}: encode both alike")
    if left.dtype is torch.float64:
        return no("sums are in float32, the operands stand for float64")
    return triton_multiplies(codes, left.block)


def _multiply(a: Operand, b: Operand, out_dtype: torch.dtype | None) -> Tensor:
    assert isinstance(a, Format)
    assert isinstance(b, Format)
    return block_matmul(a, b, out_dtype=out_dtype, impl="triton")


for _format, _name in ((BlockInt8, "block_int8"), (BlockFloat8, "block_float8")):
    for _left, _right in product((False, True), repeat=2):
        _layout = ("T" if _left else "N") + ("T" if _right else "N")
        register_matmul(
            MatmulKernel(
                f"{_name}/triton {_layout}",
                "triton",
                Pattern(_format, transposed=_left),
                Pattern(_format, transposed=_right),
                _multiply,
                triton_available,
                _supports,
            )
        )
