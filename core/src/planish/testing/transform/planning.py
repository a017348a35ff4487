"""Clauses on ``plan``: it changes nothing, and it says why."""

from __future__ import annotations

import json
from collections import Counter

from torch import nn

from planish.errors import CompositionError
from planish.interfaces.plan import Plan
from planish.targets import match
from planish.testing.clause import refusal, require
from planish.testing.snapshot import Snapshot
from planish.testing.transform.subject import TransformSubject


class PlanningClauses(TransformSubject):
    """``plan`` is pure, complete, explains itself, and survives being written down."""

    def _around_plan(self) -> tuple[Snapshot, Snapshot]:
        model = self.make_model()
        model.train()
        next(model.children()).eval()  # a mixed mode, which a careless train()/eval() pair would even out
        before = Snapshot.of(model)
        self.make_plan(model)
        return before, Snapshot.of(model)

    def test_plan_leaves_parameters_and_buffers_alone(self) -> None:
        """``plan`` changes no parameter and no buffer: neither value nor identity, gradient or requires_grad."""
        before, after = self._around_plan()
        changed = before.changed_tensor(after)
        require(not changed, f"plan() changed the parameter or buffer {changed!r}; only apply() may")

    def test_plan_leaves_modules_alone(self) -> None:
        """``plan`` replaces, adds and removes no module."""
        before, after = self._around_plan()
        changed = before.changed_module(after)
        require(not changed, f"plan() changed the module {changed!r}; only apply() may")

    def test_plan_leaves_training_mode_alone(self) -> None:
        """``plan`` switches no module between training and evaluation."""
        before, after = self._around_plan()
        changed = before.changed_mode(after)
        require(not changed, f"plan() changed the training mode of {changed!r}; restore each module's own")

    def test_plan_leaves_hooks_alone(self) -> None:
        """``plan`` leaves no hook behind."""
        before, after = self._around_plan()
        changed = before.changed_hooks(after)
        require(not changed, f"plan() left or removed hooks at {changed!r}; remove what it registers")

    def test_plan_leaves_random_state_alone(self) -> None:
        """``plan`` draws nothing from the global random generators: a run with and without it are the same run."""
        before, after = self._around_plan()
        require(
            before.random == after.random,
            "plan() drew from a global random generator of torch, random or numpy; use one of its own",
        )

    def test_plan_is_repeatable(self) -> None:
        """Planning the same model twice gives equal plans."""
        plugin, model = self.make_plugin(), self.make_model()
        first, second = plugin.plan(model, self.targets), plugin.plan(model, self.targets)
        require(first == second, "plan() on the same model gave two different plans")

    def test_plan_names_its_transform(self) -> None:
        """A plan carries the transform's name and all its options, so that it can be carried out elsewhere."""
        plan = self.make_plan(self.make_model())
        require(plan.use == self.plugin.name, f"plan.use is {plan.use!r}; expected the name {self.plugin.name!r}")
        config, again = self.make_plugin().config, self.construct(plan.config).config
        require(again == config, f"plan.config rebuilds {again!r}, not {config!r}; use config.model_dump(mode='json')")

    def test_plan_names_modules_of_the_model(self) -> None:
        """Every line names a module of the model, and no module has two lines."""
        model = self.make_model()
        known = {name for name, _ in model.named_modules(remove_duplicate=False)}
        lines = Counter(line.name for line in self.make_plan(model).modules)
        unknown = [name for name in lines if name not in known]
        twice = [name for name, count in lines.items() if count > 1]
        require(not unknown, f"the plan names {unknown}, which are no modules of the model")
        require(not twice, f"the plan has several lines for {twice}")

    def test_plan_gives_reasons(self) -> None:
        """Every line says why, for changed and for skipped modules alike."""
        for line in self._plan_of_everything().modules:
            require(
                line.reason.strip(),
                f"the plan {'changes' if line.touched else 'skips'} {line.name!r} without a reason; say why",
            )

    def test_plan_claims_what_it_changes(self) -> None:
        """Every changed module has a claim, by which composition finds conflicts; a skipped one has none."""
        for line in self._plan_of_everything().modules:
            if line.touched:
                require(line.claims, f"the plan changes {line.name!r} without a claim; name the aspect it changes")
            else:
                require(not line.claims, f"the plan skips {line.name!r} and yet claims {line.claims}")

    def test_plan_mentions_every_matched_linear(self) -> None:
        """Every ``nn.Linear`` that a target pattern matches has a line: changed, or skipped with the reason."""
        model = self.make_model()
        named = {line.name for line in self.make_plugin().plan(model, ["*"]).modules}
        silent = [name for name, m in match(model, ["*"]).items() if isinstance(m, nn.Linear) and name not in named]
        require(not silent, f"targets=['*'] matches {silent[:3]}, of which the plan says nothing; add a skipped line")

    def test_plan_stays_within_its_targets(self) -> None:
        """With target patterns, only matched modules are changed."""
        model = self.make_model()
        touched = [line.name for line in self.make_plan(model).touched]
        if not touched:
            return
        pattern = touched[0]
        allowed = match(model, [pattern])
        outside = [line.name for line in self.make_plugin().plan(model, [pattern]).touched if line.name not in allowed]
        require(not outside, f"targets={[pattern]} and yet the plan changes {outside[:3]}")

    def test_plan_survives_json(self) -> None:
        """A plan written to JSON and read back is equal: checkpoints hold it so."""
        plan = self.make_plan(self.make_model())
        try:
            again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
        except TypeError as error:
            again = None
            require(False, f"the plan holds what JSON cannot: {error}")
        require(again == plan, "the plan read back from JSON is another; use strings, numbers, tuples of claims")

    def test_unmatched_target_is_an_error(self) -> None:
        """A pattern that matches nothing is a CompositionError that names the pattern."""
        pattern = "no.such.module.*"
        with refusal(CompositionError, pattern, when=f"targets has {pattern!r}, which matches nothing"):
            self.make_plugin().plan(self.make_model(), [pattern])

    def _plan_of_everything(self) -> Plan:
        plan: Plan = self.make_plugin().plan(self.make_model(), ["*"])
        return plan
