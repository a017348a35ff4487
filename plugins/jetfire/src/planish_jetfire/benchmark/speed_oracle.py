"""What must be right on a machine before the speed of INT8 training is worth a word."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from planish_kernels.block_matmul import block_matmul, block_matmul_quantized
from planish_kernels.formats import BlockFloat8, BlockInt8
from planish_kernels.formats.block_scaled import BlockScaled
from planish_kernels.runtime.self_test import run_self_tests

from planish_jetfire.benchmark import sparse_int8_ffn
from planish_jetfire.benchmark.learning import oracle_passed

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-3}
"""Relative Frobenius error against float64 products of the decoded operands; float8 sums carry 13 bits on Hopper."""
FLOAT8_TOLERANCE = 2e-3
FLIPPED: dict[type[BlockScaled], float] = {BlockInt8: 2e-3, BlockFloat8: 2e-2}
"""Of quantized products: what codes on the edge between two values may make up. Steps of float8 are up to 1/8 wide."""


def oracle_failures(device: torch.device) -> Iterator[str]:
    """What disagrees with its oracle, in words; nothing if all is right.

    Self-tests of the kernels; products of blocks in each layout against float64; a linear of the plugin; the INT8 2:4
    network.
    """
    if device.type == "cuda":
        for test in run_self_tests(device):
            if not test.ok:
                yield f"self-test {test.name}: {test.detail}"
    for form in (BlockInt8, BlockFloat8):
        for block in (32, 64, 128):
            yield from _product_failures(form, block, device)
    if not oracle_passed(str(device)):
        yield "a linear of the plugin differs from float64 products of decoded blocks"
    yield from sparse_int8_ffn.failures(str(device))


def _product_failures(form: type[BlockScaled], block: int, device: torch.device) -> Iterator[str]:
    generator = torch.Generator().manual_seed(block)
    m, n, k = 200, 136, 272  # of what kernels ask for, and no multiple of a block
    for left_transposed in (False, True):
        for right_transposed in (False, True):
            shapes = ((k, m) if left_transposed else (m, k)), ((n, k) if right_transposed else (k, n))
            left, right = (form.encode(torch.randn(*s, generator=generator).to(device), block) for s in shapes)
            a, b = left.T if left_transposed else left, right.T if right_transposed else right
            exact = a.decode().double() @ b.decode().double()
            layout = ("T" if left_transposed else "N") + ("T" if right_transposed else "N")
            where = f"{form.__name__}, block {block}, {layout}"
            for dtype, tolerance in TOLERANCE.items():
                tolerance = max(tolerance, FLOAT8_TOLERANCE if form is BlockFloat8 else 0.0)
                error = float((block_matmul(a, b, out_dtype=dtype).double() - exact).norm() / exact.norm())
                if not error <= tolerance:
                    yield f"product of {where} to {dtype}: relative error {error:.2g} exceeds {tolerance}"
            rounded = block_matmul_quantized(a, b).decode().double()
            steps = form.encode(exact.float(), block, impl="reference").decode().double()
            error = float((rounded - steps).norm() / exact.norm())
            if not error <= FLIPPED[form]:
                yield f"quantized product of {where}: relative error {error:.2g} exceeds {FLIPPED[form]}"
