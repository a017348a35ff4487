"""Kernels that go over a tile twice give the same codes and scales, however many rows they hold at a time."""

import functools

import pytest
import torch
from planish_kernels.block_quantize import block_quantize

pytest.importorskip("triton", reason="triton is not installed")
from planish_kernels.block_activation.triton import block_activation_backward_triton
from planish_kernels.block_norm.triton import block_norm_backward_triton, row_statistics_triton
from planish_kernels.block_quantize.triton import block_quantize_triton


def numbers(rows, cols, seed):
    return 3 * torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize(("shape", "block", "chunks"), [((40, 150), 32, (16, 32)), ((100, 128), 64, (16, 32, 64))])
def test_any_chunk_gives_the_same(dtype, shape, block, chunks, kernel_device):
    seed, offset = (torch.tensor(number, device=kernel_device) for number in (3, 4))
    dense = numbers(*shape, 1).to(kernel_device)
    dense[5, 7], dense[-1, 70] = torch.nan, torch.inf

    def quantized(**how):
        codes = torch.empty(shape, dtype=dtype, device=kernel_device)
        scales = torch.empty((-(-shape[0] // block), -(-shape[1] // block)), device=kernel_device)
        block_quantize_triton(dense, dtype, block, True, seed, offset, codes, scales, **how)
        return codes, scales

    encoded = [block_quantize(numbers(*shape, k).to(kernel_device), dtype, block) for k in (2, 3, 4)]
    grad, x, up = encoded
    gated = functools.partial(
        block_activation_backward_triton, *grad, *x, *up, block, "silu", False, True, seed, offset
    )
    statistics = row_statistics_triton(*x, block, False, 1e-5)
    weight = torch.linspace(-1, 1, shape[1], device=kernel_device)
    norm = functools.partial(
        block_norm_backward_triton, *grad, *x, block, statistics, weight, True, False, True, seed, offset
    )
    for launch in (quantized, gated, norm):
        expected = launch(chunk=chunks[-1])
        for chunk in chunks[:-1]:
            for place, (found, wanted) in enumerate(zip(launch(chunk=chunk), expected, strict=True)):
                if launch is norm and place >= 2:
                    # Sums over rows, taken in another order.
                    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
                else:
                    assert torch.equal(found.float().nan_to_num(1e9), wanted.float().nan_to_num(1e9))
