"""Sample quantizer for training: weights rounded to a grid per output row, with a straight-through gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch.nn.functional as F
from planish import CompositionError
from planish.config import Config as PluginConfig
from planish.interfaces import Claim, Plan, PlannedModule, Quantizer
from planish.targets import match, replace
from pydantic import Field
from torch import Tensor, nn


def step_size(weight: Tensor, bits: int) -> Tensor:
    """Return the grid's step per row, [rows, 1], so that each row's largest magnitude lies on its end."""
    top = 2 ** (bits - 1) - 1
    return weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / top


def rounded(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """Return ``weight`` on the grid ``step · {-top, …, top}``."""
    top = 2 ** (bits - 1) - 1
    return (weight / step).round().clamp(-top, top) * step


class RoundedLinear(nn.Linear):
    """A linear layer that computes with rounded weights; its grid moves only in ``on_step``."""

    step: Tensor
    bits: int

    @classmethod
    def around(cls, linear: nn.Linear, bits: int) -> RoundedLinear:
        """Return a rounded layer with the very parameters of ``linear``."""
        made = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        made.weight, made.bias, made.bits = linear.weight, linear.bias, bits
        made.register_buffer("step", step_size(linear.weight.detach(), bits))
        return made.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight + (rounded(self.weight, self.step, self.bits) - self.weight).detach()
        return F.linear(input, weight, self.bias)


class AbsMax(Quantizer):
    """Round each row to a symmetric grid; move the grid every ``interval`` optimizer steps."""

    name = "sample-absmax"
    summary = "symmetric rounding of weights, one scale per row"
    survives = frozenset({"deepcopy", "pickle", "compile", "ddp"})

    class Config(PluginConfig):
        """Options."""

        bits: int = Field(8, ge=2, le=8, description="width of a code")
        interval: int = Field(2, ge=1, description="optimizer steps between two moves of the grid")

    def plan(self, model: nn.Module, targets: Sequence[str] | None = None) -> Plan:
        chosen = dict(model.named_modules()) if targets is None else match(model, targets)
        lines = []
        for name, module in chosen.items():
            if type(module) is nn.Linear:
                reason = f"its weight is rounded to {self.config.bits} bits"
                lines.append(PlannedModule(name, True, reason, (Claim("weight.format"),)))
            elif not any(True for _ in module.children()):
                lines.append(PlannedModule(name, False, f"a {type(module).__name__}, not an nn.Linear"))
        return Plan(self.name, self.config.model_dump(mode="json"), tuple(lines))

    def apply(self, model: nn.Module, plan: Plan) -> None:
        modules = dict(model.named_modules())
        for line in plan.touched:
            if type(modules.get(line.name)) is not nn.Linear:
                raise CompositionError(f"{line.name!r} is no nn.Linear of this model; plan on the model to be changed")
        for line in plan.touched:
            replace(model, line.name, RoundedLinear.around(modules[line.name], self.config.bits))

    def on_step(self, model: nn.Module, step: int) -> Mapping[str, float]:
        error = count = 0.0
        for _, module in self._rounded(model):
            weight = module.weight.detach()
            if step % self.config.interval == 0:
                module.step.copy_(step_size(weight, module.bits))
            error += (rounded(weight, module.step, module.bits) - weight).square().sum().item()
            count += weight.numel()
        return {"rounding_error": (error / max(1.0, count)) ** 0.5}

    def finish(self, model: nn.Module) -> None:
        for name, module in list(self._rounded(model)):
            plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            plain.weight = nn.Parameter(rounded(module.weight.detach(), module.step, module.bits))
            plain.bias = module.bias
            replace(model, name, plain.train(module.training))

    def _rounded(self, model: nn.Module) -> Iterator[tuple[str, RoundedLinear]]:
        yield from ((name, m) for name, m in model.named_modules() if isinstance(m, RoundedLinear))
