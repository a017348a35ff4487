"""Sample sparsifier: magnitude pruning of linear layers, with masks that follow the weights during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from planish import CompositionError
from planish.config import Config as PluginConfig
from planish.interfaces import Claim, Plan, PlannedModule, Sparsifier
from planish.targets import match, replace, tied_parameters
from pydantic import Field
from torch import Tensor, nn


class MaskedLinear(nn.Linear):
    """A linear layer that computes with ``weight * mask`` and passes the whole weight's gradient straight through."""

    mask: Tensor
    flips: Tensor

    @classmethod
    def around(cls, linear: nn.Linear, density: float) -> MaskedLinear:
        """Return a masked layer with the very parameters of ``linear``."""
        made = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        made.weight = linear.weight
        made.bias = linear.bias
        made.register_buffer("mask", largest(linear.weight.detach(), density))
        made.register_buffer("flips", torch.zeros((), dtype=torch.int64, device=linear.weight.device))
        return made.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight + (self.weight * self.mask - self.weight).detach()
        return F.linear(input, weight, self.bias)


def largest(weight: Tensor, density: float) -> Tensor:
    """Return the bool mask of the ``density`` share of entries that are largest in magnitude."""
    kept = max(1, round(density * weight.numel()))
    chosen = weight.abs().flatten().topk(kept).indices
    return torch.zeros_like(weight, dtype=torch.bool).flatten().index_fill(0, chosen, True).view_as(weight)


class Magnitude(Sparsifier):
    """Keep the largest weights of each linear layer; look again every ``interval`` optimizer steps."""

    name = "sample-magnitude"
    summary = "magnitude pruning with masks that follow the weights"
    survives = frozenset({"deepcopy", "pickle", "compile", "ddp", "fsdp"})

    class Config(PluginConfig):
        """Options."""

        density: float = Field(0.5, gt=0, lt=1, description="share of weights that is kept")
        interval: int = Field(2, ge=1, description="optimizer steps between two looks at the weights")

    def plan(self, model: nn.Module, targets: Sequence[str] | None = None) -> Plan:
        tied = tied_parameters(model)
        chosen = dict(model.named_modules()) if targets is None else match(model, targets)
        lines = []
        for name, module in chosen.items():
            if any(True for _ in module.children()):
                continue
            why_not = ""
            if type(module) is not nn.Linear:
                why_not = f"a {type(module).__name__}, not an nn.Linear"
            elif name == "lm_head" and targets is None:
                why_not = "the output projection stays dense unless it is targeted"
            elif f"{name}.weight" in tied:
                why_not = f"its weight is tied to {tied[f'{name}.weight'][0]}"
            if why_not:
                lines.append(PlannedModule(name, False, why_not))
            else:
                claims = (Claim("weight.mask"), Claim("matmul.forward", exclusive=False))
                lines.append(PlannedModule(name, True, f"{self.config.density:.0%} of its weights are kept", claims))
        return Plan(self.name, self.config.model_dump(mode="json"), tuple(lines))

    def apply(self, model: nn.Module, plan: Plan) -> None:
        modules = dict(model.named_modules())
        for line in plan.touched:
            if type(modules.get(line.name)) is not nn.Linear:
                raise CompositionError(f"{line.name!r} is no nn.Linear of this model; plan on the model to be changed")
        for line in plan.touched:
            replace(model, line.name, MaskedLinear.around(modules[line.name], self.config.density))

    def on_step(self, model: nn.Module, step: int) -> Mapping[str, float]:
        flipped = total = 0
        for _, module in self._masked(model):
            if step % self.config.interval == 0:
                mask = largest(whole(module.weight), self.config.density)
                module.flips += (mask != module.mask).sum()
                module.mask.copy_(mask)
            flipped += int(module.flips)
            total += module.mask.numel()
        return {"density": self.density(model), "flips_per_weight": flipped / max(1, total)}

    def finish(self, model: nn.Module) -> None:
        for name, module in list(self._masked(model)):
            plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            plain.weight = nn.Parameter(module.weight.detach() * module.mask)
            plain.bias = module.bias
            replace(model, name, plain.train(module.training))

    def masks(self, model: nn.Module) -> dict[str, Tensor]:
        return {f"{name}.weight": module.mask.clone() for name, module in self._masked(model)}

    def _masked(self, model: nn.Module) -> Iterator[tuple[str, Any]]:
        yield from ((name, module) for name, module in model.named_modules() if isinstance(module, MaskedLinear))


def whole(weight: Tensor) -> Tensor:
    """Return the full tensor of a weight that may be sharded over processes."""
    gather = getattr(weight, "full_tensor", None)
    return weight.detach() if gather is None else gather().detach()
