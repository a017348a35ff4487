"""Proof on the real device that packed INT8 buffers and their products mean what we think they mean.

The metadata of 8-bit values lies in another order than that of 16-bit ones, so a passed test of those says nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from planish_kernels.cusparselt.self_test import transposable
from planish_kernels.runtime.capability import cusparselt_available, triton_available
from planish_kernels.runtime.self_test import register_self_test
from planish_kernels.runtime.support import Support

INT8_MATMUL = "cusparselt int8 matmul"
INT8_PACKER = "cusparselt int8 packer"
TOLERANCE = 4e-3
"""Of products rounded to bfloat16; sums themselves are exact."""

#: ``pack(weight, mask)`` gives packed codes and scales of the masked weight, and those of its transpose.
Pack = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
#: ``multiply(packed, rows, cols, codes, wide)`` gives ``codes @ [rows, cols].T``, int32 if wide.
Multiply = Callable[[Tensor, int, int, Tensor, bool], Tensor]

_ROWS, _COLS, _TOKENS = 256, 384, 120


def int8_packing_error(pack: Pack, multiply: Multiply, device: torch.device) -> float:
    """The largest relative error (Frobenius) of the products of codes with W and Wᵀ; infinite if an INT32 sum is off.

    The weight is the definition's (``quantized24``), so that scales and codes of ``pack`` are proved too.
    """
    from planish_kernels.row_pack24.reference import quantized24

    generator = torch.Generator().manual_seed(24)
    mask = transposable(_ROWS, _COLS, generator).to(device)
    weight = torch.randn(_ROWS, _COLS, generator=generator).to(device)
    by_rows, row_scales, by_cols, col_scales = pack(weight, mask)
    worst = 0.0
    for packed, scales, dense, kept in (
        (by_rows, row_scales, weight, mask), (by_cols, col_scales, weight.t(), mask.t()),
    ):  # fmt: skip
        rows, cols = dense.shape
        codes, expected_scales = quantized24(dense, kept)
        tokens = torch.randint(-127, 128, (_TOKENS, cols), generator=generator).to(device, torch.int8)
        exact = tokens.double() @ codes.double().t()
        if not torch.equal(multiply(packed, rows, cols, tokens, True).double(), exact):
            return float("inf")
        found = multiply(packed, rows, cols, tokens, False).double() * scales.double()
        expected = exact * expected_scales.double()
        worst = max(worst, float((found - expected).norm() / expected.norm()))
    return worst


def _multiply(packed: Tensor, rows: int, cols: int, codes: Tensor, wide: bool) -> Tensor:
    from planish_kernels.cusparselt.int8 import int8_multiply

    return int8_multiply(packed, rows, cols, codes, wide)


def _by_library(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from planish_kernels.cusparselt.multiply import compress
    from planish_kernels.row_pack24.reference import quantized24

    codes, scales = quantized24(weight, mask)
    col_codes, col_scales = quantized24(weight.t(), mask.t())
    return compress(codes), scales, compress(col_codes), col_scales


def _by_triton(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from planish_kernels.mask24.bits import pack_mask
    from planish_kernels.row_pack24.triton import row_pack24_triton

    return row_pack24_triton(weight, pack_mask(mask), True)


@register_self_test(
    INT8_MATMUL,
    guards="the INT8 2:4 matmul (products are computed by the reference)",
    tolerance=TOLERANCE,
    available=cusparselt_available,
)
def _matmul_error(device: torch.device) -> float:
    return int8_packing_error(_by_library, _multiply, device)


def _packer_available() -> Support:
    return cusparselt_available() and triton_available()


@register_self_test(
    INT8_PACKER,
    guards="the fused INT8 packer (the slower compressor of cuSPARSELt takes its place)",
    tolerance=TOLERANCE,
    available=_packer_available,
)
def _packer_error(device: torch.device) -> float:
    return int8_packing_error(_by_triton, _multiply, device)
