"""Linears of any kind: their three matmuls, each switchable; weights quantized once a value; odd shapes; autocast."""

import copy
from collections.abc import Callable, Sequence

import planish
import pytest
import torch
from planish_jetfire import Jetfire
from planish_jetfire.linear.block_linear import BlockLinear
from planish_jetfire.linear.encoders import following_encoders
from planish_jetfire.state import QuantizationState
from planish_kernels import block_quantize as quantize_package
from planish_kernels.formats.block_float8 import BlockFloat8
from planish_kernels.formats.block_int8 import BlockInt8
from planish_kernels.formats.block_scaled import BlockScaled
from planish_kernels.formats.sparse24 import Sparse24
from torch import Tensor, nn


def rounded(x: Tensor, block: int = 32) -> Tensor:
    return BlockInt8.encode(x.detach(), block).decode()


def _pair(inputs: int = 40, outputs: int = 72, **options: object) -> tuple[nn.Linear, nn.Module]:
    dense = nn.Sequential(nn.Linear(inputs, outputs))
    model = copy.deepcopy(dense)
    planish.apply(model, Jetfire({"flow": "linear", "stochastic": False, **options}), targets=["0"])
    return dense[0], model


@pytest.mark.parametrize("tokens", [1, 32, 45])
def test_each_matmul_is_that_of_quantized_operands(tokens: int) -> None:
    dense, model = _pair()
    x, grad = torch.randn(tokens, 40, requires_grad=True), torch.randn(tokens, 72)
    output = model(x)
    output.backward(grad)
    weight = rounded(dense.weight)
    torch.testing.assert_close(output, rounded(x) @ weight.t() + dense.bias, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, rounded(grad) @ weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[0].weight.grad, rounded(grad).t() @ rounded(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[0].bias.grad, grad.sum(0))


@pytest.mark.parametrize("only", ["forward", "input_grad", "weight_grad"])
def test_each_matmul_can_be_left_dense(only: str) -> None:
    dense, model = _pair(matmuls=[only])
    x, grad = torch.randn(33, 40, requires_grad=True), torch.randn(33, 72)
    twin = x.detach().clone().requires_grad_()
    output, expected = model(x), dense(twin)
    output.backward(grad)
    expected.backward(grad)
    same = {
        "forward": torch.allclose(output, expected, atol=1e-6),
        "input_grad": torch.allclose(x.grad, twin.grad, atol=1e-6),
        "weight_grad": torch.allclose(model[0].weight.grad, dense.weight.grad, atol=1e-5),
    }
    assert same == {name: name != only for name in same}


def test_a_conv1d_is_quantized_as_it_lies() -> None:
    pytest.importorskip("transformers")
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(72, 40))
    dense = model[0]
    planish.apply(model, Jetfire({"flow": "linear", "stochastic": False}), targets=["0"])
    x, grad = torch.randn(5, 40, requires_grad=True), torch.randn(5, 72)
    model(x).backward(grad)
    assert model[0].weight is dense.weight
    torch.testing.assert_close(model[0].weight.grad, rounded(x).t() @ rounded(grad), rtol=1e-5, atol=1e-5)
    planish.finish(model)
    assert type(model[0]) is Conv1D


@pytest.fixture
def quantized(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that weights were quantized in, in order."""
    from planish_jetfire import weight_codes

    shapes: list[tuple[int, ...]] = []

    def counting(parts: Sequence[Tensor], *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        shapes.extend(tuple(dense.shape) for dense in parts)
        return quantize_package.block_quantize_joined(parts, *args, **kwargs)

    monkeypatch.setattr(weight_codes, "block_quantize_joined", counting)
    return shapes


@pytest.mark.parametrize("flow", ["linear", "block"])
def test_a_weight_is_quantized_once_a_step_for_all_passes_and_micro_steps(
    tiny: Callable, train: Callable, start: Callable, quantized: list, flow: str
) -> None:
    model = tiny()
    live = start(model, flow=flow)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, live, optimizer, 3, micro=4)
    assert len(quantized) == (1 + 3) * 14, "at first use, then after each of three steps"


@pytest.mark.parametrize("change", ["in place", "optimizer", "fused optimizer", "load", "data"])
def test_codes_follow_a_weight_that_changes_without_the_hooks(change: str) -> None:
    """Fused optimizers, for one, do not raise version counters."""
    _, model = _pair()
    layer, x = model[0], torch.randn(4, 40)
    model(x).sum().backward()
    before = layer.codes.codes.clone()
    if change == "in place":
        with torch.no_grad():
            layer.weight.mul_(-1)
    elif change == "load":
        model.load_state_dict({"0.weight": -layer.weight.detach(), "0.bias": layer.bias.detach()}, strict=False)
    elif change == "data":
        layer.weight.data = -layer.weight.data
    else:
        torch.optim.SGD(model.parameters(), lr=10.0, fused=change == "fused optimizer").step()
    model(x)
    assert not torch.equal(layer.codes.codes, before)
    expected = BlockInt8.encode(layer.weight, 32)
    assert torch.equal(layer.codes.codes, expected.codes)
    assert torch.equal(layer.codes.scales, expected.scales)


def test_with_the_hooks_a_fused_optimizer_is_followed_too(tiny: Callable, train: Callable, start: Callable) -> None:
    ends = []
    for fused in (False, True):
        model = tiny()
        live = start(model)
        train(model, live, torch.optim.SGD(model.parameters(), lr=0.1, fused=fused), 3)
        ends.append(model.layers[1].mlp.down_proj.weight)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-3, atol=1e-4)


def test_under_autocast_the_master_weight_is_quantized() -> None:
    dense, model = _pair()
    x = torch.randn(6, 40, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
    assert output.dtype is torch.bfloat16
    output.float().square().sum().backward()
    assert torch.equal(model[0].codes.codes, BlockInt8.encode(dense.weight, 32).codes)
    assert model[0].weight.grad.dtype is torch.float32
    assert x.grad.dtype is torch.float32


@pytest.mark.parametrize("flow", ["linear", "block"])
def test_a_weight_that_is_frozen_or_an_input_without_gradient_costs_nothing(
    tiny: Callable, start: Callable, flow: str
) -> None:
    model = tiny()
    start(model, flow=flow)
    for parameter in model.layers.parameters():
        parameter.requires_grad_(False)
    ids = torch.arange(16).view(2, 8)
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is None for p in model.layers.parameters())
    assert model.embed_tokens.weight.grad is not None


def test_gradients_are_rounded_without_bias() -> None:
    dense, model = _pair(stochastic=True)
    x, grad = torch.randn(32, 40, requires_grad=True), torch.randn(32, 72)
    output = model(x)
    draws = 400
    for _ in range(draws):
        output.backward(grad, retain_graph=True)
    mean = x.grad / draws
    exact = grad @ rounded(dense.weight)
    single = (rounded(grad) - grad).std() * dense.weight.norm(dim=0).mean()
    assert (mean - exact).abs().mean() < 3 * single / draws**0.5
    x.grad = None
    _, nearest = _pair()
    assert isinstance(nearest[0], BlockLinear)
    grads = []
    for _ in range(2):
        x.grad = None
        model(x).backward(grad)
        grads.append(x.grad)
    assert not torch.equal(*grads), "each pass draws anew"


@pytest.mark.parametrize("kind", [BlockInt8, BlockFloat8])
def test_what_another_method_packed_is_quantized_as_what_it_stands_for(kind: type[BlockScaled]) -> None:
    packed = Sparse24.encode(torch.randn(64, 128))
    state = QuantizationState(torch.device("cpu"), seed=0, rounding="nearest", start_step=0)
    encoders = following_encoders(kind, 32, state, ("forward", "input_grad", "weight_grad"))
    for operands in (encoders.forward, encoders.input_grad):
        assert operands.right is not None
        found = operands.right.encode(packed, contraction=1)
        assert isinstance(found, kind)
        assert torch.equal(found.decode(), kind.encode(packed.decode(), 32).decode())
    state.eval()
    assert encoders.forward.right.encode(packed, contraction=1) is packed
