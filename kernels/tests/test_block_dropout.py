"""Dropout of quantized operands: codes kept as they are, scales divided, the same mask backward."""

import pytest
import torch
from planish_kernels.block_dropout import block_dropout
from planish_kernels.block_dropout.reference import STREAM
from planish_kernels.block_quantize import block_quantize
from planish_kernels.formats import BlockFloat8, BlockInt8
from planish_kernels.philox import element_uniforms, rounding_noise
from planish_kernels.runtime.op import KernelUnavailable

CPU = torch.device("cpu")


def operand(kind, shape, block, device):
    dense = torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))
    return kind.encode(dense.to(device), block)


def mask(x, p, seed, offset):
    return element_uniforms(torch.tensor(seed) ^ STREAM, torch.tensor(offset), *x.shape) >= p


@pytest.mark.parametrize(("kind", "block"), [(BlockInt8, 32), (BlockInt8, 128), (BlockFloat8, 64)])
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_codes_stay_and_scales_are_divided(kind, block, impl, kernel_device):
    device = kernel_device if impl == "triton" else CPU
    for shape in ((64, 256), (33, 65), (1, 1)):
        for p in (0.1, 0.5, 0.9):
            x = operand(kind, shape, block, device)
            found = block_dropout(x, p, seed=7, offset=2**40, impl=impl)
            keep = mask(x, p, 7, 2**40)
            assert torch.equal(found.codes.cpu().float(), torch.where(keep, x.codes.cpu().float(), 0))
            exact = x.scales.cpu().double() / (1 - p)
            assert ((found.scales.cpu().double() - exact).abs() / exact).max() < 2.0**-16.9
            assert not (found.scales.view(torch.int32) & 0x7F).any(), "17 significant bits: decoding is exact"
            assert found.decode().dtype is x.dtype
            wide = found.scales.repeat_interleave(block, 0)[: shape[0]].repeat_interleave(block, 1)[:, : shape[1]]
            assert torch.equal(found.decode().double(), found.codes.double() * wide.double())


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_the_kernel_is_bit_equal_to_the_reference(kernel_device):
    for kind in (BlockInt8, BlockFloat8):
        x = operand(kind, (70, 130), 32, kernel_device)
        scales = x.scales.clone()
        scales[0, 0], scales[1, 1], scales[2, 2] = torch.nan, 2.0**-120, 3e38
        for p in (1e-7, 0.3, 1 - 1e-9):
            spoilt = kind(x.codes, scales, 32)
            slow, fast = (block_dropout(spoilt, p, 3, 5, impl=impl) for impl in ("reference", "triton"))
            assert torch.equal(slow.codes.view(torch.int8), fast.codes.view(torch.int8))
            assert torch.equal(slow.scales.nan_to_num(-1.0), fast.scales.nan_to_num(-1.0))


def test_a_block_that_kept_its_largest_code_encodes_to_itself():
    x = operand(BlockInt8, (128, 128), 32, CPU)
    found = block_dropout(x, 0.3, seed=1)
    codes, scales = block_quantize(found.decode(), torch.int8, 32)
    kept = (found.codes.abs().view(4, 32, 4, 32).amax((1, 3)) == 127).nonzero().tolist()
    assert len(kept) > 4
    for row, col in kept:
        block = (slice(32 * row, 32 * row + 32), slice(32 * col, 32 * col + 32))
        assert scales[row, col] == found.scales[row, col]
        assert torch.equal(codes[block], found.codes[block])


def test_the_mean_over_masks_is_the_operand():
    x = operand(BlockInt8, (32, 64), 32, CPU)
    p, draws = 0.3, 800
    total = torch.zeros(32, 64, dtype=torch.float64)
    for offset in range(draws):
        total += block_dropout(x, p, offset=offset).decode().double()
    exact = x.decode().double()
    # A Bernoulli draw over its mean deviates by sqrt(p / (1 - p)) of the entry.
    deviation = exact.abs().clamp_min(1e-9) * (p / (1 - p) / draws) ** 0.5
    score = (total / draws - exact) / deviation
    assert score.abs().max() < 5.5
    assert abs(float(score.mean())) < 0.12


def test_forward_and_backward_draw_the_same_mask():
    x, grad = operand(BlockInt8, (40, 96), 32, CPU), operand(BlockInt8, (40, 96), 32, CPU)
    x = BlockInt8(torch.ones_like(x.codes), x.scales, 32)
    grad = BlockInt8(torch.full_like(grad.codes, 3), grad.scales, 32)
    forward, backward = block_dropout(x, 0.5, 9, 4), block_dropout(grad, 0.5, 9, 4)
    assert torch.equal(3 * forward.codes, backward.codes)
    assert not torch.equal(forward.codes, block_dropout(x, 0.5, 9, 5).codes), "another step, another mask"


def test_the_mask_is_independent_of_rounding_under_the_same_seed():
    rounding = rounding_noise(torch.tensor(9), torch.tensor(4), 200, 200).flatten()
    keep = mask(operand(BlockInt8, (200, 200), 32, CPU), 0.5, 9, 4).flatten().float()
    assert abs(float(torch.corrcoef(torch.stack((rounding, keep)))[0, 1])) < 0.02


def test_not_finite_blocks_show():
    x = operand(BlockInt8, (32, 64), 32, CPU)
    scales = x.scales.clone()
    scales[0, 0] = torch.nan
    out = block_dropout(BlockInt8(x.codes, scales, 32), 0.5).decode()
    assert out[:, :32].isnan().all()
    assert out[:, 32:].isfinite().all()
    huge = BlockInt8(x.codes, torch.full_like(x.scales, 3e38), 32)
    assert block_dropout(huge, 0.5).scales.isnan().all()


def test_bad_input():
    x = operand(BlockInt8, (32, 64), 32, CPU)
    assert block_dropout(x, 0.0) is x
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"expected a probability in \[0, 1\)"):
            block_dropout(x, p)
    with pytest.raises(TypeError, match="x is a Tensor"):
        block_dropout(torch.randn(4, 4), 0.5)
    with pytest.raises(ValueError, match="are no row-major matrix"):
        block_dropout(BlockInt8(x.codes.t().contiguous().t(), x.scales, 32), 0.5)
    with pytest.raises(KernelUnavailable, match="implemented for"):
        block_dropout(x, 0.5, impl="cuda")


def test_opcheck():
    x = operand(BlockInt8, (33, 40), 32, CPU)
    zero = torch.tensor(0)
    torch.library.opcheck(torch.ops.planish.block_dropout, (x.codes, x.scales, 32, 2**22, zero, zero, "auto"))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [BlockInt8, BlockFloat8])
def test_large_on_gpu(kind, gpu):
    x = operand(kind, (2050, 4100), 32, gpu)
    slow, fast = (block_dropout(x, 0.1, 1, 2, impl=impl) for impl in ("reference", "triton"))
    assert torch.equal(slow.codes.view(torch.int8), fast.codes.view(torch.int8))
    assert torch.equal(slow.scales, fast.scales)
