"""Products of two block-scaled operands in each of the four positions that a linear layer needs, for any backend."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from planish_kernels.block_matmul.op import block_matmul, parts
from planish_kernels.formats.block_float8 import BlockFloat8
from planish_kernels.formats.block_int8 import BlockInt8
from planish_kernels.formats.format import Format, Operand
from planish_kernels.matmul.pattern import Pattern
from planish_kernels.matmul.table import MatmulKernel, register_matmul
from planish_kernels.runtime.support import Support, no


def register_block_scaled(
    backend: str, available: Callable[[], Support], multiplies: Callable[[Tensor, Tensor, int], Support]
) -> None:
    """Add the kernels of one backend of ``block_matmul`` to the table.

    Args:
        backend: its name.
        available: whether it exists in this process.
        multiplies: whether it takes codes ``[m, k]`` and ``[k, n]`` in blocks of that side.
    """

    def supports(a: Operand, b: Operand) -> Support:
        assert isinstance(a, Format)
        assert isinstance(b, Format)
        (a_codes, _, left), (b_codes, _, right) = parts(a), parts(b)
        if left.block != right.block:
            return no(f"a has blocks of {left.block}, b of {right.block}: encode both alike")
        if left.dtype is torch.float64:
            return no("sums are in float32, the operands stand for float64")
        return multiplies(a_codes, b_codes, left.block)

    def multiply(a: Operand, b: Operand, out_dtype: torch.dtype | None) -> Tensor:
        assert isinstance(a, Format)
        assert isinstance(b, Format)
        return block_matmul(a, b, out_dtype=out_dtype, impl=backend)

    for form, name in ((BlockInt8, "block_int8"), (BlockFloat8, "block_float8")):
        for left, right in product((False, True), repeat=2):
            layout = ("T" if left else "N") + ("T" if right else "N")
            register_matmul(
                MatmulKernel(
                    f"{name}/{backend} {layout}",
                    backend,
                    Pattern(form, transposed=left),
                    Pattern(form, transposed=right),
                    multiply,
                    available,
                    supports,
                )
            )
