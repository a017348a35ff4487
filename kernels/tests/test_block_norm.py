"""Quantized norms against float64 autograd on the decoded input, over whole rows of many widths."""

import pytest
import torch
import torch.nn.functional as F
from planish_kernels.block_norm import block_norm, block_norm_backward, row_statistics
from planish_kernels.formats import BlockFloat8, BlockInt8

WIDTHS = [64, 128, 129, 768, 1024]


def operand(kind, shape, block, seed, device, shift=0.0):
    dense = 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + shift
    return kind.encode(dense.to(device), block)


def exact(kind, x, weight, bias, grad):
    leaf = x.decode().cpu().double().requires_grad_()
    scale = None if weight is None else weight.detach().cpu().double().requires_grad_()
    level = None if bias is None else bias.detach().cpu().double().requires_grad_()
    if kind == "layer":
        out = F.layer_norm(leaf, leaf.shape[1:], scale, level, 1e-5)
    else:
        out = F.rms_norm(leaf, leaf.shape[1:], scale, 1e-5)
        out = out if level is None else out + level
    out.backward(grad.decode().cpu().double())
    return out.detach(), leaf.grad, None if scale is None else scale.grad, None if level is None else level.grad


def close(found, expected, bound):
    """Within ``bound`` scales of the block (half of one is what rounding to nearest may take)."""
    rows, cols = found.shape
    scales = found.scales.cpu().double().repeat_interleave(found.block, 0)[:rows]
    scales = scales.repeat_interleave(found.block, 1)[:, :cols]
    return bool(((found.decode().cpu().double() - expected).abs() <= bound * scales).all())


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_forward_and_backward(kind, width, impl, kernel_device):
    device = kernel_device if impl == "triton" else torch.device("cpu")
    block = 32 if width % 3 else 128
    x, grad = (operand(BlockInt8, (37, width), block, seed, device, 0.5) for seed in (1, 2))
    weight, bias = (torch.randn(width, generator=torch.Generator().manual_seed(s)).to(device) for s in (3, 4))
    for given in ((weight, bias), (weight, None), (None, None)):
        out, grad_x, grad_weight, grad_bias = exact(kind, x, *given, grad)
        statistics = row_statistics(x, kind, impl=impl)
        assert close(block_norm(x, statistics, *given, impl=impl), out, 0.503)
        for rounding, bound in (("nearest", 0.503), ("stochastic", 1.003)):
            how = {"kind": kind, "rounding": rounding, "seed": 3, "offset": 4}
            found = block_norm_backward(grad, x, statistics, given[0], **how, impl=impl)
            assert close(found.input, grad_x, bound)
            if grad_weight is not None:
                torch.testing.assert_close(found.weight.cpu().double(), grad_weight, rtol=1e-4, atol=1e-3)
            if grad_bias is not None:
                torch.testing.assert_close(found.bias.cpu().double(), grad_bias, rtol=1e-4, atol=1e-3)
            without = block_norm_backward(grad, x, statistics, given[0], has_bias=False, **how, impl=impl)
            assert without.bias is None
            assert torch.equal(without.input.codes, found.input.codes)
            assert torch.equal(without.weight, found.weight)


def test_the_row_means_run_over_the_whole_row():
    # The published kernel summed within 128 columns and divided by the width.
    x, grad = (operand(BlockInt8, (32, 512), 32, seed, torch.device("cpu"), 1.0) for seed in (1, 2))
    _, grad_x, _, _ = exact("layer", x, None, None, grad)
    found = block_norm_backward(grad, x, row_statistics(x), rounding="nearest").input.decode().double()
    error = torch.linalg.norm(found - grad_x) / torch.linalg.norm(grad_x)
    assert error < 0.01
    tiles = [t.decode() for t in (grad, x)]
    statistics = row_statistics(x)
    normal = (tiles[1] - statistics[0][:, None]) * statistics[1][:, None]
    level = tiles[0].view(32, 4, 128).sum(2).div(512).repeat_interleave(128, 1)
    along = (tiles[0] * normal).view(32, 4, 128).sum(2).div(512).repeat_interleave(128, 1)
    wrong = statistics[1][:, None] * (tiles[0] - level - normal * along)
    assert torch.linalg.norm(wrong - grad_x) / torch.linalg.norm(grad_x) > 5 * error


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_a_large_mean_cancels_nothing_and_a_constant_row_is_finite(impl, kernel_device):
    device = kernel_device if impl == "triton" else torch.device("cpu")
    x = operand(BlockInt8, (32, 256), 32, 1, device, 1e4)
    decoded = x.decode().cpu().double()
    statistics = row_statistics(x, impl=impl).cpu().double()
    torch.testing.assert_close(statistics[0], decoded.mean(1), rtol=1e-6, atol=0)
    expected = (decoded.var(1, unbiased=False) + 1e-5).rsqrt()
    torch.testing.assert_close(statistics[1], expected, rtol=1e-3, atol=0)
    constant = BlockInt8.encode(torch.full((32, 64), 3.0, device=device), 32)
    torch.testing.assert_close(row_statistics(constant, impl=impl)[1].cpu(), torch.full((32,), 1e-5**-0.5))


def test_float8():
    x, grad = (operand(BlockFloat8, (40, 200), 64, seed, torch.device("cpu")) for seed in (1, 2))
    out, grad_x, _, _ = exact("rms", x, None, None, grad)
    statistics = row_statistics(x, "rms")
    # e4m3 has three bits of mantissa: a relative 2^-4, and 2^-10 of the scale where it is subnormal.
    found = block_norm(x, statistics).decode().double()
    assert ((found - out).abs() <= 2**-4 * out.abs() + 1e-3).all()
    found = block_norm_backward(grad, x, statistics, kind="rms", rounding="nearest").input.decode().double()
    assert ((found - grad_x).abs() <= 2**-4 * grad_x.abs() + 1e-3).all()


def test_not_finite_rows_show():
    x = operand(BlockInt8, (64, 64), 32, 1, torch.device("cpu"))
    spoilt = BlockInt8(x.codes, x.scales.clone(), 32)
    spoilt.scales[0, 0] = torch.nan
    out = block_norm(spoilt, row_statistics(spoilt)).decode()
    assert out[:32].isnan().all()
    assert out[32:].isfinite().all()


def test_bad_input():
    x = operand(BlockInt8, (32, 64), 32, 1, torch.device("cpu"))
    statistics = row_statistics(x)
    with pytest.raises(ValueError, match="kind='batch'"):
        row_statistics(x, "batch")
    with pytest.raises(ValueError, match=r"statistics are torch.float32 \(32, 2\), expected float32 \(2, 32\)"):
        block_norm(x, statistics.t())
    with pytest.raises(ValueError, match=r"weight has shape \(3,\), expected \(64,\)"):
        block_norm(x, statistics, torch.ones(3))
    with pytest.raises(TypeError, match="x is a Tensor"):
        block_norm(torch.randn(2, 2), statistics)
    with pytest.raises(ValueError, match="they must agree"):
        block_norm_backward(operand(BlockInt8, (32, 64), 64, 1, torch.device("cpu")), x, statistics)


def test_opcheck():
    x = operand(BlockInt8, (33, 40), 32, 1, torch.device("cpu"))
    parts, zero = (x.codes, x.scales), torch.tensor(0)
    statistics = row_statistics(x)
    torch.library.opcheck(torch.ops.planish.row_statistics, (*parts, 32, False, 1e-5, "auto"))
    torch.library.opcheck(torch.ops.planish.block_norm, (*parts, 32, statistics, torch.ones(40), None, "auto"))
    arguments = (*parts, *parts, 32, statistics, None, True, True, True, zero, zero, "auto")
    torch.library.opcheck(torch.ops.planish.block_norm_backward, arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("width", [1024, 4096, 4100])
@pytest.mark.parametrize("block", [32, 128])
def test_large_on_gpu(kind, width, block, gpu):
    x, grad = (operand(BlockInt8, (1030, width), block, seed, gpu, 0.5) for seed in (1, 2))
    weight, bias = (torch.randn(width, device=gpu) for _ in range(2))
    out, grad_x, grad_weight, _ = exact(kind, x, weight, bias, grad)
    statistics = row_statistics(x, kind)
    assert close(block_norm(x, statistics, weight, bias), out, 0.503)
    found = block_norm_backward(grad, x, statistics, weight, kind=kind)
    assert close(found.input, grad_x, 1.003)
    torch.testing.assert_close(found.weight.cpu().double(), grad_weight, rtol=1e-3, atol=1e-2)
