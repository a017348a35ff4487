"""Proof on the real device that packed buffers mean what we think they mean.

A matmul on metadata of another layout raises nothing and returns plausible numbers, with a relative error near 1. So
before the path is used, products of W and of its transpose are held against the masked dense ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from planish_kernels.cusparselt import layout
from planish_kernels.runtime.capability import cusparselt_available, triton_available
from planish_kernels.runtime.self_test import register_self_test
from planish_kernels.runtime.support import Support

MATMUL = "cusparselt matmul"
PACKERS = "cusparselt packers"
TOLERANCE = 1e-2

#: ``pack(weight, mask)`` gives the packed buffers of the masked weight and of its transpose.
Pack = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
#: ``multiply(packed, rows, cols, dense)`` gives ``[rows, cols] @ dense``.
Multiply = Callable[[Tensor, int, int, Tensor], Tensor]

_ROWS, _COLS, _WIDTH = 256, 384, 128


def packing_error(pack: Pack, multiply: Multiply, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """The larger relative error (Frobenius) of the products of W and Wᵀ, packed by ``pack``, against float64."""
    generator = torch.Generator().manual_seed(24)
    weight = torch.randn(_ROWS, _COLS, generator=generator).to(dtype).to(device)
    mask = transposable(_ROWS, _COLS, generator).to(device)
    dense = torch.randn(_ROWS + _COLS, _WIDTH, generator=generator).to(dtype).to(device)
    by_rows, by_cols = pack(weight, mask)
    masked = (weight * mask).double()
    forward = multiply(by_rows, _ROWS, _COLS, dense[:_COLS]), masked @ dense[:_COLS].double()
    backward = multiply(by_cols, _COLS, _ROWS, dense[_COLS:]), masked.t() @ dense[_COLS:].double()
    return max(_relative_error(*forward), _relative_error(*backward))


def transposable(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A mask [height, width] of randomly permuted 4 × 4 blocks: two places in each row and column of a block."""
    pattern = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)
    blocks = height // 4, width // 4
    rows = torch.rand(*blocks, 4, generator=generator).argsort(-1)
    cols = torch.rand(*blocks, 4, generator=generator).argsort(-1)
    return pattern[rows.unsqueeze(-1), cols.unsqueeze(-2)].permute(0, 2, 1, 3).reshape(height, width)


def _relative_error(product: Tensor, expected: Tensor) -> float:
    return float((product.double() - expected).norm() / expected.norm())


def _multiply(packed: Tensor, rows: int, cols: int, dense: Tensor) -> Tensor:
    from planish_kernels.cusparselt.multiply import multiply

    return multiply(packed, rows, cols, dense, False)


def _by_library(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    from planish_kernels.cusparselt.multiply import compress

    masked = weight * mask
    return compress(masked), compress(masked.t())


def _by_triton(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    from planish_kernels.cusparselt.pack_triton import pack_triton
    from planish_kernels.mask24.bits import pack_mask

    rows, cols = weight.shape
    packed = [weight.new_full((layout.packed_numel(rows, cols, weight.dtype),), torch.nan) for _ in range(2)]
    pack_triton(weight, pack_mask(mask), None, packed[0], packed[1])
    return packed[0], packed[1]


@register_self_test(
    MATMUL,
    guards="the cuSPARSELt matmul (2:4 products are emulated by dense ones)",
    tolerance=TOLERANCE,
    available=cusparselt_available,
)
def _matmul_error(device: torch.device) -> float:
    return packing_error(_by_library, _multiply, device)


def _packers_available() -> Support:
    return cusparselt_available() and triton_available()


@register_self_test(
    PACKERS,
    guards="the fused packers (the slower compressor of cuSPARSELt takes their place)",
    tolerance=TOLERANCE,
    available=_packers_available,
)
def _packers_error(device: torch.device) -> float:
    from planish_kernels.cusparselt.pack_triton import mvue_pack_triton
    from planish_kernels.mvue24.reference import mvue24_reference

    generator = torch.Generator().manual_seed(42)
    grad = torch.randn(_ROWS, _COLS, generator=generator).to(torch.bfloat16).to(device)
    dense = torch.randn(_ROWS, _WIDTH, generator=generator).to(torch.bfloat16).to(device)
    seed = torch.tensor(7, device=device)
    packed = mvue_pack_triton(grad, seed, seed)
    expected = mvue24_reference(grad, seed, seed, "exact").double().t() @ dense.double()
    gradient = _relative_error(_multiply(packed, _COLS, _ROWS, dense), expected)
    return max(packing_error(_by_triton, _multiply, device), gradient)
