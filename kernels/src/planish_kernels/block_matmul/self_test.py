"""Proof on the real device that products on Hopper are right where each processor works through several tiles.

A thread block that reuses shared memory too early is wrong now and then, at large sizes alone.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from planish_kernels.block_matmul.hopper import DENSE_VARIANTS, block_matmul_hopper
from planish_kernels.block_quantize.reference import block_quantize_reference
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.capability import cuda_available, cuda_capability, nvrtc_available
from planish_kernels.runtime.self_test import register_self_test
from planish_kernels.runtime.support import YES, Support, no
from planish_kernels.runtime.tracing import constant_while_tracing

_TOLERANCES = {torch.int8: 1e-6, torch.float8_e4m3fn: 1e-3}
"""Relative to the product: sums in float32; those of float8 carry some 13 bits."""
_ROWS, _COLS, _INNER = 2500, 8200, 1040
"""Seven tiles for each of 132 processors, no multiple of a tile, nine stages."""


def self_test_name(code_dtype: torch.dtype, block: int) -> str:
    """What the self-test of the kernel for these codes is called."""
    return f"{'int8' if code_dtype is torch.int8 else 'float8'} blocks of {block} on Hopper"


def hopper_available() -> Support:
    """Whether a Hopper GPU is here, and what compiles CUDA C++ for it at run time; a constant of a compiled graph."""
    absence = _absence()
    return no(absence, worth_warning=False) if absence else YES


@constant_while_tracing
def _absence() -> str:
    """Why not, or an empty string: Dynamo takes a string as a constant, and cannot trace what looks for NVRTC."""
    if not (gpu := cuda_available()):
        return gpu.reason
    capability = cuda_capability()
    if capability is None or capability[0] != 9:
        return f"wgmma is for Hopper GPUs (compute capability 9.0), this one has {capability}"
    return nvrtc_available().reason


def product_error(code_dtype: torch.dtype, block: int, device: torch.device) -> float:
    """The largest relative error (Frobenius) of a product in each variant against float64, on a GPU.

    Random codes and scales. A quantized product must be the quantized dense one: what counts is the share that is not.
    """
    generator = torch.Generator(device).manual_seed(block)
    codes, scales = [], []
    for size in (_ROWS, _COLS):
        drawn = torch.randint(-127, 128, (size, _INNER), generator=generator, device=device)
        codes.append(drawn.to(torch.float32).to(code_dtype))
        shape = -(-size // block), -(-_INNER // block)
        scales.append(torch.rand(shape, generator=generator, device=device) + 0.5)
    unused = as_scalar("seed", 0, device)
    operands = codes[0], scales[0], codes[1].t(), scales[1].t(), block, None
    wide = [_decoded(code, scale, block) for code, scale in zip(codes, scales, strict=True)]
    exact = wide[0] @ wide[1].t()
    dense, errors = torch.empty((_ROWS, _COLS), device=device), []
    for variant in DENSE_VARIANTS:
        dense.fill_(torch.nan)
        block_matmul_hopper(*operands, dense, None, False, unused, unused, variant)
        errors.append(float((dense.double() - exact).norm() / exact.norm()))
    expected = block_quantize_reference(dense, code_dtype, block, False, unused, unused)
    found = torch.empty_like(expected[0]), torch.empty_like(expected[1])
    block_matmul_hopper(*operands, *found, False, unused, unused)
    errors += [float((got.float() != right.float()).float().mean()) for got, right in zip(found, expected, strict=True)]
    return max(errors)


def _decoded(codes: Tensor, scales: Tensor, block: int) -> Tensor:
    rows, cols = codes.shape
    wide = scales.double().repeat_interleave(block, 0)[:rows].repeat_interleave(block, 1)[:, :cols]
    return codes.double() * wide


def _register(code_dtype: torch.dtype, block: int) -> None:
    @register_self_test(
        self_test_name(code_dtype, block),
        guards="the CUDA kernel of block-scaled products (Triton takes its place)",
        tolerance=_TOLERANCES[code_dtype],
        available=hopper_available,
    )
    def _(device: torch.device) -> float:
        return product_error(code_dtype, block, device)


for _code_dtype, _block in product(_TOLERANCES, (32, 64, 128)):
    _register(_code_dtype, _block)
