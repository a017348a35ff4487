"""Channel outliers planted in a model that computes the same: a few channels of each norm's output are 60 times larger.

The norm's weight (and bias) holds the factor, the columns of the linears behind it its inverse. So that it also trains
the same, the optimizer works on the unscaled parameters: a parameter of the model is such a one times a fixed factor.
Without quantization, training with and without outliers differs by float rounding alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

CHANNELS = (3, 17)
FACTOR = 60.0
FOLLOWERS = {
    "ln_1": ("attn.c_attn",),
    "ln_2": ("mlp.c_fc",),
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
"""Norm -> the linears behind it, by their names in a block of GPT-2 and of Llama."""


def norms(model: nn.Module) -> Iterator[tuple[nn.Module, str, tuple[nn.Module, ...]]]:
    """Each block with the name of one of its norms, and the linears behind that norm."""
    for block in model.modules():
        for name, followers in FOLLOWERS.items():
            if isinstance(getattr(block, name, None), nn.Module):
                yield block, name, tuple(block.get_submodule(follower) for follower in followers)


class PlantedOutliers:
    """Plants outliers in a model, and keeps the parameters that an optimizer should work on."""

    def __init__(self, model: nn.Module, channels: tuple[int, ...] = CHANNELS, factor: float = FACTOR) -> None:
        self._pairs: list[tuple[nn.Parameter, nn.Parameter, Tensor]] = []
        for block, name, linears in norms(model):
            norm = block.get_submodule(name)
            for parameter in norm.parameters():
                self._plant(parameter, _factors(len(parameter), channels, factor))
            for linear in linears:
                weight = linear.get_parameter("weight")
                # Conv1D stores [in, out].
                inverse = _factors(weight.shape[isinstance(linear, nn.Linear)], channels, 1 / factor)
                self._plant(weight, inverse if isinstance(linear, nn.Linear) else inverse[:, None])
        if not self._pairs:
            raise ValueError(f"{type(model).__name__} has no block with a norm named {', '.join(FOLLOWERS)}")
        self.push()

    def _plant(self, parameter: nn.Parameter, factors: Tensor) -> None:
        self._pairs.append((parameter, nn.Parameter(parameter.detach().clone()), factors.to(parameter)))

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """Those of the model, with the unscaled ones in the places of the scaled."""
        unscaled = {id(parameter): own for parameter, own, _ in self._pairs}
        return [unscaled.get(id(parameter), parameter) for parameter in model.parameters()]

    @torch.no_grad()
    def pull_gradients(self) -> None:
        """Move the gradients from the model's parameters to the unscaled ones."""
        for parameter, own, factors in self._pairs:
            own.grad = None if parameter.grad is None else parameter.grad * factors
            parameter.grad = None

    @torch.no_grad()
    def push(self) -> None:
        """Write the unscaled parameters, scaled, into the model."""
        for parameter, own, factors in self._pairs:
            parameter.copy_(own * factors)


def _factors(channels: int, scaled: tuple[int, ...], factor: float) -> Tensor:
    factors = torch.ones(channels)
    factors[list(scaled)] = factor
    return factors
