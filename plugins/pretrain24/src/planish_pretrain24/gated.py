"""Runs ``act(gate) * up`` of a gated feed-forward network in one fused kernel (ICML 2024, section 5.2).

Sparse matmuls write their output column-major, which kernels that walk rows read badly. The fused operator takes either
layout, and saves reading and writing the activation besides. Only a network that is seen to compute
``down(act(gate(x)) * up(x))`` is changed: a small float64 clone with random weights is compared before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Self

import torch
from planish import targets
from planish.structure import FeedForward, features
from planish_kernels.gated_activation import geglu, swiglu
from torch import Tensor, nn

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
_AGREE = 1e-9
_PROBE_TOKENS, _PROBE_WIDTH = 8, 16


class FusedGatedFeedForward(nn.Module):
    """Stands for a gated feed-forward network: the same children, parameters, hooks and ``state_dict`` keys.

    Attributes:
        gate, up, down: Names of the children; ``up`` is empty where one linear holds gate and up side by side.
        activation: One of ``ACTIVATIONS``.
        original: Class that :func:`restore` goes back to.
    """

    gate: str
    up: str
    down: str
    activation: str
    original: type[nn.Module]

    @classmethod
    def from_module(cls, module: nn.Module, gate: str, up: str, down: str, activation: str) -> Self:
        """Take the place of ``module``; everything in it moves over."""
        fused = cls.__new__(cls)
        fused.__dict__.update(_copied(module))
        fused.gate, fused.up, fused.down, fused.activation = gate, up, down, activation
        fused.original = type(module)
        return fused

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., features]`` to the same."""
        down = self._modules[self.down]
        gate = self._modules[self.gate]
        assert gate is not None
        assert down is not None
        if not self.up:
            output: Tensor = down(fused_activation(gate(hidden), None, self.activation))
            return output
        up = self._modules[self.up]
        assert up is not None
        output = down(fused_activation(up(hidden), gate(hidden), self.activation))
        return output


_OWN = ("gate", "up", "down", "activation", "original")


def fused_activation(up: Tensor, gate: Tensor | None, activation: str) -> Tensor:
    """``act(gate) * up``; with ``gate`` None, ``up`` holds the gate in its first half and up in its second."""
    gate_first = gate is None
    if activation == "silu":
        return swiglu(up, gate, gate_first=gate_first)
    return geglu(up, gate, approximate="tanh" if activation == "gelu_tanh" else "none", gate_first=gate_first)


def fuse(model: nn.Module, network: FeedForward) -> str | None:
    """Fuse one network in place.

    Returns:
        None if it was fused, else why not.
    """
    module = model.get_submodule(network.parent)
    names = _children(module, network)
    if names is None or not network.parent:
        return "it is not a gated network"
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance"
    if any(isinstance(inner, nn.Dropout) and inner.p > 0 for inner in module.modules()):
        return "it has dropout inside"
    activation = _activation_of(module, *names)
    if activation is None:
        return "it computes something else than down(act(gate(x)) * up(x)) with SiLU or GELU"
    targets.replace(model, network.parent, FusedGatedFeedForward.from_module(module, *names, activation))
    return None


def restore(model: nn.Module) -> None:
    """Give every fused network its original class back."""
    for name, module in _fused(model):
        plain = module.original.__new__(module.original)
        plain.__dict__.update({key: value for key, value in _copied(module).items() if key not in _OWN})
        targets.replace(model, name, plain)


def _fused(model: nn.Module) -> Iterator[tuple[str, FusedGatedFeedForward]]:
    for name, module in list(model.named_modules()):
        if isinstance(module, FusedGatedFeedForward):
            yield name, module


def _copied(module: nn.Module) -> dict[str, object]:
    return {key: copy.copy(value) if isinstance(value, dict) else value for key, value in module.__dict__.items()}


def _children(module: nn.Module, network: FeedForward) -> tuple[str, str, str] | None:
    """The child names (gate, up, down), up empty where one linear holds both; None if the network is not gated."""
    prefix = f"{network.parent}." if network.parent else ""
    expand = [name.removeprefix(prefix) for name in network.expand]
    down = network.contract.removeprefix(prefix)
    if not all(name in module._modules for name in (*expand, down)):
        return None
    if len(expand) == 2:
        return expand[0], expand[1], down
    wide, narrow = features(module.get_submodule(expand[0])), features(module.get_submodule(down))
    if wide is None or narrow is None or wide[1] != 2 * narrow[0]:
        return None
    return expand[0], "", down


@torch.no_grad()
def _activation_of(module: nn.Module, gate: str, up: str, down: str) -> str | None:
    """Which activation makes the fused form equal to the module; None if none does.

    The module's own ``forward`` is run on a clone that has small float64 linears with random weights.
    """
    generator = torch.Generator().manual_seed(0)
    inner = 2 * _PROBE_WIDTH
    clone = module.__class__.__new__(module.__class__)
    clone.__dict__.update(_copied(module))
    clone.__dict__.update({key: type(value)() for key, value in module.__dict__.items() if "_hooks" in key})
    clone._modules = {}
    for name, child in module.named_children():
        if name in (gate, up, down):
            size = (inner, _PROBE_WIDTH) if name == down else (_PROBE_WIDTH, inner if up else 2 * inner)
            clone._modules[name] = _random_linear(
                *size, bias=getattr(child, "bias", None) is not None, generator=generator
            )
        else:
            clone._modules[name] = copy.deepcopy(child)
    clone = clone.to(torch.float64).eval()
    hidden = torch.randn(1, _PROBE_TOKENS, _PROBE_WIDTH, dtype=torch.float64, generator=generator)
    try:
        expected = clone(hidden)
    except Exception:  # a forward that takes or needs something else is no plain gated network
        return None
    if not isinstance(expected, Tensor):
        return None
    for activation in ACTIVATIONS:
        found = FusedGatedFeedForward.from_module(clone, gate, up, down, activation)(hidden)
        if found.shape == expected.shape and float((found - expected).norm() / expected.norm()) < _AGREE:
            return activation
    return None


def _random_linear(inputs: int, outputs: int, *, bias: bool, generator: torch.Generator) -> nn.Linear:
    """A float64 linear whose outputs are wide enough for activations to tell each other apart."""
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, dtype=torch.float64)  # type: ignore
    linear.weight.normal_(0, 3 / inputs**0.5, generator=generator)
    if bias:
        linear.bias.normal_(generator=generator)
    return linear
