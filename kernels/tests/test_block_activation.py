"""Quantized activations against float64: no further from it than quantizing the exact result is."""

import pytest
import torch
import torch.nn.functional as F
from planish_kernels.block_activation import block_activation, block_activation_backward
from planish_kernels.formats import BlockFloat8, BlockInt8
from planish_kernels.gated_activation.op import ACTIVATIONS
from planish_kernels.runtime.op import KernelUnavailable

CURVES = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def operand(kind, shape, block, seed, device):
    dense = 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return kind.encode(dense.to(device), block)


def exact(activation, grad, x, up):
    leaves = [t.decode().cpu().double().requires_grad_() for t in (x, up) if t is not None]
    out = CURVES[activation](leaves[0]) * (leaves[1] if up is not None else 1)
    out.backward(grad.decode().cpu().double())
    return out.detach(), [leaf.grad for leaf in leaves]


def steps_off(found, expected):
    """How far decoded entries are from the exact ones, in steps between codes: at most 1/2 to nearest."""
    rows, cols = found.shape
    scales = found.scales.cpu().double().repeat_interleave(found.block, 0)[:rows]
    scales = scales.repeat_interleave(found.block, 1)[:, :cols]
    error = (found.decode().cpu().double() - expected).abs()
    if isinstance(found, BlockInt8):
        return error / scales
    # Neighbouring float8 numbers are 2^-3 of their power of two apart, 2^-9 below 2^-6.
    ratio = (expected.abs() / scales).clamp_min(2.0**-6)
    return error / (scales * 2.0 ** (ratio.log2().floor() - 3))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("is_gated", [False, True])
@pytest.mark.parametrize(("kind", "block"), [(BlockInt8, 32), (BlockInt8, 128), (BlockFloat8, 64)])
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_forward_and_backward(activation, is_gated, kind, block, impl, kernel_device):
    device = kernel_device if impl == "triton" else torch.device("cpu")
    for shape in ((64, 256), (33, 65)):
        x, up, grad = (operand(kind, shape, block, seed, device) for seed in (1, 2, 3))
        up = up if is_gated else None
        out, gradients = exact(activation, grad, x, up)
        found = block_activation(x, up, activation=activation, impl=impl)
        # Half a step, and what float32 loses in erf and exp (1e-6 of the largest entry, which is 127 or 448 steps).
        slack = 0.003 if kind is BlockInt8 else 0.05
        assert steps_off(found, out).max() <= 0.5 + slack
        for rounding, bound in (("nearest", 0.5), ("stochastic", 1.0)):
            how = {"activation": activation, "rounding": rounding, "seed": 7, "offset": 8}
            both = block_activation_backward(grad, x, up, **how, impl=impl)
            assert (both[1] is None) == (up is None)
            for one, expected in zip(both, gradients):
                assert steps_off(one, expected).max() <= bound + slack


@pytest.mark.parametrize("is_gated", [False, True])
def test_the_kernel_draws_as_the_reference_does(is_gated, kernel_device):
    x, up, grad = (operand(BlockInt8, (70, 130), 32, seed, kernel_device) for seed in (1, 2, 3))
    up = up if is_gated else None
    found = block_activation_backward(grad, x, up, activation="silu", seed=3, offset=5, impl="triton")
    slow = block_activation_backward(grad, x, up, activation="silu", seed=3, offset=5, impl="reference")
    for one, other in zip(found, slow):
        if one is not None:
            # exp differs in its last bit: a code may differ where a value lies on the edge of its draw.
            assert ((one.codes.int() - other.codes.int()) != 0).float().mean() < 2e-3


@pytest.mark.parametrize("kind", [BlockInt8, BlockFloat8])
@pytest.mark.parametrize(("shape", "block"), [((70, 128), 32), ((33, 192), 64), ((128, 128), 128)])
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_gradients_side_by_side_are_the_same_bits(kind, shape, block, impl, kernel_device):
    device = kernel_device if impl == "triton" else torch.device("cpu")
    x, up, grad = (operand(kind, shape, block, seed, device) for seed in (1, 2, 3))
    how = {"activation": "silu", "seed": 3, "offset": 5, "impl": impl}
    apart = block_activation_backward(grad, x, up, **how)
    wide = block_activation_backward(grad, x, up, side_by_side=True, **how)
    assert wide.shape == (shape[0], 2 * shape[1])
    assert torch.equal(wide.codes.float(), torch.cat([one.codes.float() for one in apart], 1))
    assert torch.equal(wide.scales, torch.cat([one.scales for one in apart], 1))


def test_side_by_side_takes_two_gradients_of_whole_blocks():
    x, whole = (operand(BlockInt8, (32, cols), 32, 1, torch.device("cpu")) for cols in (40, 64))
    with pytest.raises(ValueError, match="there is no up: ask for them one by one"):
        block_activation_backward(whole, whole, side_by_side=True)
    with pytest.raises(ValueError, match="x has 40 columns in blocks of 32"):
        block_activation_backward(x, x, x, side_by_side=True)


def test_stochastic_gradients_are_unbiased():
    x, up, grad = (operand(BlockInt8, (32, 64), 32, seed, torch.device("cpu")) for seed in (1, 2, 3))
    _, gradients = exact("silu", grad, x, up)
    draws = 600
    sums = [torch.zeros(32, 64, dtype=torch.float64) for _ in range(2)]
    for offset in range(0, 2 * draws, 2):
        for total, one in zip(sums, block_activation_backward(grad, x, up, activation="silu", offset=offset)):
            total += one.decode().double()
    for total, one, expected in zip(sums, block_activation_backward(grad, x, up, activation="silu"), gradients):
        # A draw is off by less than a scale, with a deviation of at most half of one.
        assert ((total / draws - expected).abs().max()) < 5 * 0.5 / draws**0.5 * one.scales.max()


def test_not_finite_blocks_show():
    x = operand(BlockInt8, (32, 64), 32, 1, torch.device("cpu"))
    spoilt = BlockInt8(x.codes, x.scales.clone().fill_diagonal_(torch.nan), 32)
    out = block_activation(spoilt).decode()
    assert out[:, :32].isnan().all()
    assert out[:, 32:].isfinite().all()


def test_bad_input():
    x = operand(BlockInt8, (32, 64), 32, 1, torch.device("cpu"))
    with pytest.raises(ValueError, match="activation='relu'"):
        block_activation(x, activation="relu")
    with pytest.raises(ValueError, match=r"up is BlockInt8 .* with blocks of 64, x is BlockInt8"):
        block_activation(x, operand(BlockInt8, (32, 64), 64, 1, torch.device("cpu")))
    with pytest.raises(TypeError, match="x is a Tensor"):
        block_activation(torch.randn(4, 4))
    with pytest.raises(ValueError, match="are no row-major matrix"):
        block_activation(BlockInt8(x.codes.t().contiguous().t(), x.scales, 32))
    with pytest.raises(ValueError, match="rounding='none'"):
        block_activation_backward(x, x, rounding="none")
    with pytest.raises(KernelUnavailable, match="implemented for"):
        block_activation(x, impl="cuda")


def test_opcheck():
    x = operand(BlockInt8, (33, 40), 32, 1, torch.device("cpu"))
    zero = torch.tensor(0)
    for up in ((None, None), (x.codes.clone(), x.scales.clone())):
        torch.library.opcheck(torch.ops.planish.block_activation, (x.codes, x.scales, *up, 32, "silu", "auto"))
        arguments = (x.codes, x.scales, x.codes, x.scales, *up, 32, "gelu", False, True, zero, zero, "auto")
        torch.library.opcheck(torch.ops.planish.block_activation_backward, arguments)
    whole = operand(BlockInt8, (33, 64), 32, 1, torch.device("cpu"))
    arguments = (*(whole.codes, whole.scales) * 3, 32, "gelu", True, True, zero, zero, "auto")
    torch.library.opcheck(torch.ops.planish.block_activation_backward, arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("kind", "block"), [(BlockInt8, 32), (BlockInt8, 128), (BlockFloat8, 128)])
def test_large_on_gpu(activation, kind, block, gpu):
    x, up, grad = (operand(kind, (1025, 2100), block, seed, gpu) for seed in (1, 2, 3))
    out, gradients = exact(activation, grad, x, up)
    slack = 0.003 if kind is BlockInt8 else 0.05
    assert steps_off(block_activation(x, up, activation=activation), out).max() <= 0.5 + slack
    for one, expected in zip(block_activation_backward(grad, x, up, activation=activation), gradients):
        assert steps_off(one, expected).max() <= 1 + slack
