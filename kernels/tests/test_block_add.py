"""Residual sums: exact in the stream's precision, rounded rather than cut, with statistics of the quantized sum."""

import pytest
import torch
from planish_kernels.block_add import block_add
from planish_kernels.block_norm import row_statistics
from planish_kernels.formats import BlockFloat8, BlockInt8


def parts(kind, shape, block, dtype, device):
    generator = torch.Generator().manual_seed(shape[1])
    residual = torch.randn(*shape, generator=generator).to(device, dtype)
    return residual, kind.encode((0.3 * torch.randn(*shape, generator=generator)).to(device), block)


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize(("encoding", "block"), [(BlockInt8, 32), (BlockInt8, 64), (BlockFloat8, 128)])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_sum_copy_and_statistics(kind, encoding, block, rounding, impl, kernel_device):
    device = kernel_device if impl == "triton" else torch.device("cpu")
    for shape in ((40, 200), (33, 129), (1, 64)):
        # Triton's interpreter cuts off where it should round to bfloat16.
        for dtype in (torch.float32, torch.bfloat16 if device.type == "cuda" or impl == "reference" else torch.float16):
            residual, branch = parts(encoding, shape, block, dtype, device)
            strided = torch.stack((residual, residual), -1)[..., 1]
            found = block_add(strided, branch, kind=kind, rounding=rounding, seed=3, offset=4, impl=impl)
            exact = residual.float() + branch.decode().float()
            assert torch.equal(found.total, exact.to(dtype))
            copy = encoding.encode(found.total, block, rounding, 3, 4, impl="reference")
            assert torch.equal(found.quantized.codes.float(), copy.codes.float())
            assert torch.equal(found.quantized.scales, copy.scales)
            assert found.quantized.dtype is dtype
            expected = row_statistics(copy, kind, impl="reference")
            torch.testing.assert_close(found.statistics, expected, rtol=2e-6, atol=2e-6)


def test_the_copy_is_rounded_and_not_cut():
    # The published kernel converts to int8 without rounding: magnitudes half a step too small on average.
    residual, branch = parts(BlockInt8, (512, 512), 32, torch.float32, torch.device("cpu"))
    found = block_add(residual, branch)
    wide = found.quantized.scales.repeat_interleave(32, 0).repeat_interleave(32, 1)
    steps = (found.quantized.decode() - found.total) / wide
    assert abs(float((steps * found.total.sign()).mean())) < 0.01
    assert float(steps.abs().max()) <= 0.5001


def test_a_large_mean_does_not_spoil_the_deviation(kernel_device):
    residual = 1e3 + torch.randn(32, 600, generator=torch.Generator().manual_seed(0))
    branch = BlockInt8.encode(torch.zeros(32, 600, device=kernel_device))
    found = block_add(residual.to(kernel_device), branch, impl="triton")
    decoded = found.quantized.decode().cpu().double()
    expected = (decoded.var(1, unbiased=False) + 1e-5).rsqrt()
    torch.testing.assert_close(found.statistics[1].cpu().double(), expected, rtol=1e-4, atol=0)


def test_bad_input():
    residual, branch = parts(BlockInt8, (32, 64), 32, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"residual has shape \(64, 32\)"):
        block_add(residual.t(), branch)
    with pytest.raises(ValueError, match="kind='group'"):
        block_add(residual, branch, kind="group")
    with pytest.raises(TypeError, match="branch is a Tensor"):
        block_add(residual, residual)
    with pytest.raises(TypeError, match="expected a floating"):
        block_add(residual.long(), branch)


def test_opcheck():
    residual, branch = parts(BlockInt8, (33, 40), 32, torch.float32, torch.device("cpu"))
    zero = torch.tensor(0)
    arguments = (residual, branch.codes, branch.scales, 32, False, 1e-5, True, zero, zero, "auto")
    torch.library.opcheck(torch.ops.planish.block_add, arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("block", [32, 64, 128])
def test_large_on_gpu(block, gpu):
    residual, branch = parts(BlockInt8, (2050, 4100), block, torch.bfloat16, gpu)
    for rounding in ("nearest", "stochastic"):
        found = block_add(residual, branch, rounding=rounding, seed=1, offset=2, impl="triton")
        slow = block_add(residual, branch, rounding=rounding, seed=1, offset=2, impl="reference")
        assert torch.equal(found.total, slow.total)
        assert torch.equal(found.quantized.codes, slow.quantized.codes)
        torch.testing.assert_close(found.statistics, slow.statistics, rtol=1e-5, atol=1e-5)
