"""Broken sparsifiers, one for each clause that is a sparsifier's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from samples.magnitude import MaskedLinear

from broken.case import Broken
from broken.transform import Base, Suite


class ByteMasks(Base):
    def masks(self, model):
        return {name: mask.to(torch.uint8) for name, mask in super().masks(model).items()}


class StrayMask(Base):
    def masks(self, model):
        found = super().masks(model)
        return found | ({"lm_head.weight": torch.ones(32, 16, dtype=torch.bool)} if found else {})


class DenseLinear(MaskedLinear):
    def forward(self, input):
        return F.linear(input, self.weight, self.bias)


class ComputesDensely(Base):
    layer = DenseLinear

    def finish(self, model):
        for _, module in self._masked(model):
            module.mask.fill_(True)
        super().finish(model)


class DensityOfZeros(Base):
    def density(self, model):
        return 1.0 - super().density(model)


class LendsItsMasks(Base):
    def masks(self, model):
        return {f"{name}.weight": module.mask for name, module in self._masked(model)}


class RemembersMasks(Base):
    def apply(self, model, plan):
        super().apply(model, plan)
        for _, module in self._masked(model):
            module.shown = module.mask.clone()

    def on_step(self, model, step):
        metrics = super().on_step(model, step)
        for _, module in self._masked(model):
            module.shown = module.mask.clone()
        return metrics

    def masks(self, model):
        return {f"{name}.weight": module.shown.clone() for name, module in self._masked(model)}


class NeverFinishes(Base):
    def finish(self, model):
        """Leave the masked layers in place, with dense weights."""


BROKEN = [
    Broken(Suite, "test_masks_are_bool_of_parameter_shape", "torch.uint8", ByteMasks),
    Broken(Suite, "test_masks_belong_to_planned_modules", "lm_head.weight", StrayMask),
    Broken(Suite, "test_masks_are_the_zeros_of_the_effective_weight", "take part in the forward pass", ComputesDensely),
    Broken(
        Suite,
        "test_density_is_the_share_of_kept_entries",
        "the masks keep 0.25",
        DensityOfZeros,
        {"options": {"density": 0.25}},
    ),
    Broken(Suite, "test_masks_are_read_only", "return a copy", LendsItsMasks),
    Broken(Suite, "test_masks_survive_a_checkpoint", "keep them in buffers", RemembersMasks),
    Broken(Suite, "test_finished_masks_are_the_zeros_of_the_weights", "nonzero entries", NeverFinishes),
]
