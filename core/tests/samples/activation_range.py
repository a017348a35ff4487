"""Sample quantizer for after training: inputs of linear layers rounded on a grid that calibration measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from planish import CompositionError, DataError
from planish.config import Config as PluginConfig
from planish.interfaces import Claim, Plan, PlannedModule, Quantizer
from planish.targets import match, replace
from pydantic import Field
from torch import Tensor, nn


class StaticInputLinear(nn.Linear):
    """A linear layer whose input is rounded to ``input_step · {-top, …, top}``; a step of 0 leaves it as it is."""

    input_step: Tensor
    top: int

    @classmethod
    def around(cls, linear: nn.Linear, top: int) -> StaticInputLinear:
        """Return such a layer with the very parameters of ``linear``."""
        made = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        made.weight, made.bias, made.top = linear.weight, linear.bias, top
        made.register_buffer("input_step", torch.zeros((), dtype=linear.weight.dtype, device=linear.weight.device))
        return made.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        step = torch.where(self.input_step > 0, self.input_step, 1)
        grid = (input / step).round().clamp(-self.top, self.top) * step
        return F.linear(torch.where(self.input_step > 0, grid, input), self.weight, self.bias)


class ActivationRange(Quantizer):
    """Measure the largest input of each linear layer, and round inputs to a grid that ends there."""

    name = "sample-activation-range"
    summary = "static rounding of activations, calibrated on sample batches"
    needs_calibration = True

    class Config(PluginConfig):
        """Options."""

        bits: int = Field(8, ge=2, le=8, description="width of a code")

    def plan(self, model: nn.Module, targets: Sequence[str] | None = None) -> Plan:
        chosen = dict(model.named_modules()) if targets is None else match(model, targets)
        lines = []
        for name, module in chosen.items():
            if type(module) is nn.Linear:
                reason = f"its input is rounded to {self.config.bits} bits"
                lines.append(PlannedModule(name, True, reason, (Claim("input.format"),)))
            elif not any(True for _ in module.children()):
                lines.append(PlannedModule(name, False, f"a {type(module).__name__}, not an nn.Linear"))
        return Plan(self.name, self.config.model_dump(mode="json"), tuple(lines))

    def apply(self, model: nn.Module, plan: Plan) -> None:
        modules = dict(model.named_modules())
        for line in plan.touched:
            if type(modules.get(line.name)) is not nn.Linear:
                raise CompositionError(f"{line.name!r} is no nn.Linear of this model; plan on the model to be changed")
        for line in plan.touched:
            top = 2 ** (self.config.bits - 1) - 1
            replace(model, line.name, StaticInputLinear.around(modules[line.name], top))

    def calibrate(self, model: nn.Module, batches: Iterable[Any], progress: Any = None) -> None:
        largest: dict[str, Tensor] = {}
        modes = {module: module.training for module in model.modules()}
        hooks = [m.register_forward_pre_hook(partial(_note_largest, largest, n)) for n, m in self._static(model)]
        done = 0
        try:
            model.eval()
            with torch.no_grad():
                for batch in batches:
                    model(**batch) if isinstance(batch, Mapping) else model(batch)
                    done += 1
                    if progress is not None:
                        progress(done, 0, "measuring activations")
        finally:
            for hook in hooks:
                hook.remove()
            for module, mode in modes.items():
                module.training = mode
        if not done:
            raise DataError("calibration got no batch; give at least one")
        for name, module in self._static(model):
            module.input_step.copy_(largest[name].clamp_min(1e-12) / module.top)

    def finish(self, model: nn.Module) -> None:
        """Nothing is left to do: the layers already compute in their deployable form."""

    def _static(self, model: nn.Module) -> Iterator[tuple[str, StaticInputLinear]]:
        yield from ((name, m) for name, m in model.named_modules() if isinstance(m, StaticInputLinear))


def _note_largest(largest: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    now = inputs[0].abs().amax()
    largest[name] = torch.maximum(largest[name], now) if name in largest else now
