"""Fusing gated activations: only where the network computes what the fused form computes."""

import copy
import pickle

import pytest
import torch
from planish.structure import find_feed_forwards
from planish_pretrain24 import gated
from torch import Tensor, nn


class _Gated(nn.Module):
    """A gated network whose parts can be set wrong."""

    def __init__(self, act: nn.Module, swap: bool = False, residual: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(16, 32), nn.Linear(16, 32)
        self.down_proj, self.act_fn = nn.Linear(32, 16), act
        self.drop = nn.Dropout(dropout)
        self.swap, self.residual = swap, residual

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        if self.swap:
            gate, up = up, gate
        out = self.down_proj(self.drop(self.act_fn(gate) * up))
        return x + out if self.residual else out


class _Packed(nn.Module):
    """Gate and up in one linear, as in Phi-3."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = nn.Linear(16, 64), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(up * nn.functional.silu(gate))


def _fuse(network: nn.Module) -> tuple[nn.Module, str | None]:
    model = nn.ModuleDict({"mlp": network})
    (found,) = find_feed_forwards(model)
    return model, gated.fuse(model, found)


@pytest.mark.parametrize(
    ("act", "name"),
    [(nn.SiLU(), "silu"), (nn.GELU(), "gelu"), (nn.GELU(approximate="tanh"), "gelu_tanh")],
    ids=["silu", "gelu", "tanh"],
)
def test_the_fused_network_computes_the_same(act: nn.Module, name: str) -> None:
    network = _Gated(act)
    expected = copy.deepcopy(network)
    model, refusal = _fuse(network)
    assert refusal is None
    fused = model["mlp"]
    assert isinstance(fused, gated.FusedGatedFeedForward)
    assert fused.activation == name
    assert fused.state_dict().keys() == expected.state_dict().keys()
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(fused(x), expected(x))
    fused(x).square().sum().backward()
    expected(x).square().sum().backward()
    for ours, theirs in zip(fused.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_gate_and_up_in_one_linear() -> None:
    network = _Packed()
    expected = copy.deepcopy(network)
    model, refusal = _fuse(network)
    assert refusal is None
    x = torch.randn(3, 16)
    torch.testing.assert_close(model["mlp"](x), expected(x))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (_Gated(nn.SiLU(), swap=True), "something else"),
        (_Gated(nn.SiLU(), residual=True), "something else"),
        (_Gated(nn.ReLU()), "something else"),
        (_Gated(nn.SiLU(), dropout=0.1), "dropout"),
        (nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)), "not a gated network"),
    ],
    ids=["swapped", "residual", "relu", "dropout", "plain"],
)
def test_anything_else_is_left_alone(network: nn.Module, reason: str) -> None:
    model, refusal = _fuse(network)
    assert reason in str(refusal)
    assert model["mlp"] is network


def test_zero_weights_do_not_mislead_the_comparison() -> None:
    network = _Gated(nn.ReLU())
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    assert _fuse(network)[1] is not None


def test_it_is_copied_pickled_and_restored() -> None:
    network = _Gated(nn.SiLU())
    random = torch.get_rng_state()
    model, _ = _fuse(network)
    assert torch.equal(torch.get_rng_state(), random)
    x = torch.randn(3, 16)
    expected = model["mlp"](x)
    assert torch.equal(copy.deepcopy(model)["mlp"](x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))["mlp"](x), expected)
    gated.restore(model)
    assert type(model["mlp"]) is _Gated
    torch.testing.assert_close(model["mlp"](x), expected)
    assert all(a is b for a, b in zip(model["mlp"].parameters(), network.parameters(), strict=True))
