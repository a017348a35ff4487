"""Clauses on ``apply``: it does what the plan says, to what the plan names."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

import planish
from planish.errors import PlanishError
from planish.interfaces.plan import PlannedModule
from planish.testing.clause import not_claimed, refusal, require
from planish.testing.snapshot import Snapshot
from planish.testing.transform.subject import TransformSubject


class ApplyingClauses(TransformSubject):
    """``apply`` works in place, keeps parameters, and touches nothing that is not in the plan."""

    def test_apply_keeps_the_output_finite(self) -> None:
        """After ``apply`` the model gives outputs of the same shape and dtype, all finite."""
        before = self.evaluate(self.make_model())
        after = self.evaluate(self.transformed()[0])
        require(
            after.shape == before.shape and after.dtype == before.dtype,
            f"apply() changed the output from {before.dtype} {list(before.shape)} to {after.dtype} {list(after.shape)}",
        )
        require(torch.isfinite(after).all(), "after apply() the output has infinite or NaN values")

    def test_apply_keeps_parameter_identity(self) -> None:
        """Every parameter is the same object after ``apply``: optimizers and tied weights refer to it."""
        if not self.keeps_parameters:
            not_claimed("keeps_parameters is False")
        model = self.make_model()
        before = dict(model.named_parameters())
        self.apply_to(model)
        kept = {id(parameter) for parameter in model.parameters()}
        lost = [name for name, parameter in before.items() if id(parameter) not in kept]
        require(not lost, f"apply() replaced the parameters {lost[:3]}; hand the same nn.Parameter on")

    def test_apply_keeps_parameter_values(self) -> None:
        """A kept parameter has the value that it had: ``apply`` itself loses no information."""
        if not self.keeps_parameters:
            not_claimed("keeps_parameters is False")
        model = self.make_model()
        before = {name: (parameter, parameter.detach().clone()) for name, parameter in model.named_parameters()}
        planish.apply(model, self.make_plugin(), targets=self.targets)
        kept = {id(parameter) for parameter in model.parameters()}
        changed = [n for n, (p, value) in before.items() if id(p) in kept and not torch.equal(p, value)]
        require(not changed, f"apply() changed the values of {changed[:3]}; training starts from the given weights")

    def test_apply_keeps_training_mode(self) -> None:
        """New modules are in the mode of the model: training in training, evaluation in evaluation."""
        for mode in (True, False):
            model = self.make_model().train(mode)
            planish.apply(model, self.make_plugin(), targets=self.targets)
            other = [name for name, module in model.named_modules() if module.training is not mode]
            require(not other, f"applied in {'training' if mode else 'evaluation'} mode, {other[:3]} are in the other")

    def test_apply_touches_only_planned_modules(self) -> None:
        """Modules outside the plan keep their identity, class and parameters."""
        model = self.make_model()
        before = Snapshot.of(model)
        plan = planish.apply(model, self.make_plugin(), targets=self.targets).plan
        touched = [line.name for line in plan.touched]
        for name, (module, kind) in before.modules.items():
            if any(name == t or name.startswith(f"{t}.") or t.startswith(f"{name}.") or not t for t in touched):
                continue
            try:
                now: nn.Module | None = model.get_submodule(name) if name else model
            except AttributeError:
                now = None
            require(
                now is module and type(now) is kind,
                f"apply() changed {name or '(model)'!r}, which the plan does not list as touched; plan it",
            )
        for name, (tensor, value, _, _) in before.tensors.items():
            owner = name.rpartition(".")[0]
            if not any(owner == t or owner.startswith(f"{t}.") or not t for t in touched):
                require(
                    torch.equal(tensor, value),
                    f"apply() changed {name!r}, whose module the plan does not list as touched; plan it",
                )

    def test_apply_is_all_or_nothing(self) -> None:
        """A plan made for another model is refused by name of what is missing, and the model is as it was."""
        model = self.make_model()
        plugin = self.make_plugin()
        plan = plugin.plan(model, self.targets)
        if not plan.touched:
            return
        foreign = PlannedModule("no_such_module", True, "from another model", plan.touched[0].claims)
        before = Snapshot.of(model)
        with refusal(PlanishError, "no_such_module", when="the plan names a module that the model lacks"):
            plugin.apply(model, replace(plan, modules=(*plan.modules, foreign)))
        after = Snapshot.of(model)
        changed = before.changed_module(after) or before.changed_tensor(after)
        require(
            not changed, f"apply() raised and yet changed {changed!r}; check the whole plan before the first change"
        )

    def test_apply_twice_is_refused(self) -> None:
        """A second application to the same model is refused, by claims or because nothing is left to change."""
        model, _ = self.transformed()
        with refusal(PlanishError, when="applied to a model that it has already transformed"):
            planish.apply(model, self.make_plugin(), targets=self.targets)
