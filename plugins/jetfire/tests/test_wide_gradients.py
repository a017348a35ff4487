"""Linears that multiply one input: their gradients as one matrix, in one matmul."""

import copy

import planish
import pytest
import torch
from planish_jetfire import Jetfire
from planish_jetfire.flow import feed_forward, parameters, projections
from planish_jetfire.flow.arithmetic import Linear, columns
from planish_jetfire.flow.parameters import grads_of_all
from planish_kernels.formats.block_int8 import BlockInt8
from torch import nn

transformers = pytest.importorskip("transformers")


def llama(keys: int = 2) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=keys,
        vocab_size=64,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).train()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    planish.apply(model, Jetfire({"flow": "block", "stochastic": False}))
    tokens = torch.arange(96).view(2, 48) % 64
    model(input_ids=tokens, labels=tokens).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("keys", [1, 2])
def test_one_matmul_gives_what_three_and_two_do(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, twin = llama(keys), llama(keys)
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    wide: list[tuple[int, ...]] = []
    multiply = parameters.block_matmul

    def counting(a: BlockInt8, b: BlockInt8, **how: object) -> torch.Tensor:
        wide.append(a.shape)
        return multiply(a, b, **how)

    monkeypatch.setattr(parameters, "block_matmul", counting)
    found = gradients(model)
    assert wide == [(256, 96), (64 + 2 * keys * 32, 96)], "gate and up; queries, keys and values"
    monkeypatch.setattr(feed_forward, "_is_one", lambda widened: False)
    monkeypatch.setattr(projections, "stacks", lambda sizes, block: False)
    expected = gradients(twin)
    assert len(wide) == 2
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        assert grad.is_contiguous(), name
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)


def test_a_second_backward_adds_to_each_weight_alone() -> None:
    model = llama()
    planish.apply(model, Jetfire({"flow": "block", "stochastic": False}))
    tokens = torch.arange(96).view(2, 48) % 64
    once = {}
    for _ in range(2):
        model(input_ids=tokens, labels=tokens).loss.backward()
        once = once or {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        if name in once:
            torch.testing.assert_close(parameter.grad, 2 * once[name], rtol=1e-4, atol=1e-6)


def test_clipping_and_an_optimizer_take_the_gradients_as_others() -> None:
    model, twin = llama(), llama()
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    gradients(model)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.grad = None if one.grad is None else one.grad.clone(memory_format=torch.contiguous_format)
    for each in (model, twin):
        optimizer = torch.optim.AdamW(each.parameters(), lr=1e-2, foreach=True)
        torch.nn.utils.clip_grad_norm_(each.parameters(), 0.1)
        optimizer.step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_each_weight_gets_its_gradient_in_its_own_dtype(dtypes: tuple[torch.dtype, ...]) -> None:
    linears = [Linear(torch.randn(outs, 40, dtype=dtype), None, False) for outs, dtype in zip((32, 50), dtypes)]
    grad, input = BlockInt8.encode(torch.randn(70, 82), 32), BlockInt8.encode(torch.randn(70, 40), 32)
    found = grads_of_all(linears, [grad], input, [None, None], (True, False, True, False))
    expected = (grad.decode().t() @ input.decode()).split([32, 50])
    for weight, truth, dtype in zip(found[::2], expected, dtypes, strict=True):
        assert weight is not None
        assert weight.dtype is dtype
        # In float32 nothing of it was rounded to bfloat16 on the way.
        torch.testing.assert_close(weight, truth.to(dtype), rtol=1e-5 if dtype is torch.float32 else 0.01, atol=1e-3)


@pytest.mark.parametrize("needed", [(True, True, False, True), (False, False, True, False)])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_what_needs_no_gradient_gets_none(needed: tuple[bool, ...], is_transposed: bool) -> None:
    def linear(outs: int) -> Linear:
        weight = torch.randn(40, outs) if is_transposed else torch.randn(outs, 40)
        return Linear(weight, torch.randn(outs), is_transposed)

    linears = [linear(32), linear(50)]
    grad, input = BlockInt8.encode(torch.randn(70, 82), 32), BlockInt8.encode(torch.randn(70, 40), 32)
    found = grads_of_all(linears, [grad], input, [None, None], needed)
    assert [one is not None for one in found] == list(needed)
    for i, (first, count) in enumerate(((0, 32), (32, 50))):
        part = columns(grad, first, count).decode()
        assert torch.equal(part, grad.decode()[:, first : first + count])
        expected = part.t() @ input.decode()
        weight, bias = found[2 * i : 2 * i + 2]
        if weight is not None:
            torch.testing.assert_close(weight, expected.t() if is_transposed else expected, rtol=1e-4, atol=1e-3)
        if bias is not None:
            torch.testing.assert_close(bias, part.sum(0), rtol=1e-4, atol=1e-4)
