"""Broken sparsifiers, one for each clause that all plugins or all transforms share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace as changed

import torch
import torch.nn.functional as F
from planish import CompositionError, ConfigError
from planish.interfaces import Claim, PlannedModule
from planish.plugins.registry import Entry, Registry
from planish.targets import replace
from planish.testing.tiny_transformer import TinyTransformer, token_batches
from pydantic import ConfigDict, Field, field_serializer
from samples.magnitude import Magnitude, MaskedLinear, largest
from samples.suites import MagnitudeSuite
from torch import nn

from broken.case import Broken


class Suite(MagnitudeSuite):
    """The sample's suite at the smallest size."""

    plugin = Magnitude
    steps = 4

    def make_model(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(10)
            return TinyTransformer(vocab_size=32, dim=16, inner=32, layers=1)

    def make_batches(self, count):
        return list(token_batches(count, batch=2, length=8, vocab_size=32))


class Base(Magnitude):
    """The sample without the claims that take seconds to try."""

    survives = frozenset({"deepcopy", "pickle"})
    layer = MaskedLinear

    def apply(self, model, plan):
        super().apply(model, plan)
        for name, module in list(self._masked(model)):
            made = self.layer.around(module, self.config.density)
            made.mask.copy_(module.mask)
            replace(model, name, made)


# ---- names, summaries, options


class BadName(Base):
    name = "sample magnitude!"


class LongSummary(Base):
    summary = "two\nlines"


class ElsewhereRegistered:
    @classmethod
    def registry(cls):
        registry = Registry()
        target = "samples.magnitude:Pruning"
        registry.add(Entry("sparsifier", "sample-magnitude", target, "", "sample", "sample", "0"))
        return registry


class MutableConfig(Base):
    class Config(Magnitude.Config):
        model_config = ConfigDict(frozen=False, extra="forbid")


class LenientConfig(Base):
    def __init__(self, config=None, **options):
        given = dict(config or options)
        super().__init__({name: value for name, value in given.items() if name in self.Config.model_fields})


class UndescribedField(Base):
    class Config(Magnitude.Config):
        note: str = ""


class FieldWithoutSchema(Base):
    class Config(Magnitude.Config):
        score: Callable[[int], int] | None = Field(None, description="a function, which JSON schema cannot express")


class OneWayField(Base):
    class Config(Magnitude.Config):
        note: str = Field("a", description="a remark")

        @field_serializer("note")
        def shout(self, note):
            return note.upper()

    def plan(self, model, targets=None):
        return changed(super().plan(model, targets), config=dict(self.config))


class VagueOptionError(Base):
    def __init__(self, config=None, **options):
        try:
            super().__init__(config, **options)
        except ConfigError as error:
            if "unknown field" in str(error):
                raise
            raise ConfigError("something is wrong with the options") from None


# ---- plan


class PlanTouchesGradients(Base):
    def plan(self, model, targets=None):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return super().plan(model, targets)


class PlanAddsModule(Base):
    def plan(self, model, targets=None):
        made = super().plan(model, targets)
        model.add_module("spare", nn.Identity().train(model.training))
        return changed(made, modules=tuple(line for line in made.modules if line.name != "spare"))


class PlanEvensMode(Base):
    def plan(self, model, targets=None):
        model.train(model.training)
        return super().plan(model, targets)


def look(module, inputs, output):
    """Do nothing, as a forward hook."""


class PlanLeavesHook(Base):
    def plan(self, model, targets=None):
        model.register_forward_hook(look)
        return super().plan(model, targets)


class PlanDraws(Base):
    def plan(self, model, targets=None):
        torch.rand(1)
        return super().plan(model, targets)


class PlanCounts(Base):
    counter = itertools.count()

    def plan(self, model, targets=None):
        return changed(super().plan(model, targets), notes=(f"plan number {next(self.counter)}",))


class PlanForgetsOption(Base):
    class Config(Magnitude.Config):
        note: str = Field("", description="a remark")

    def plan(self, model, targets=None):
        made = super().plan(model, targets)
        return changed(made, config={name: value for name, value in made.config.items() if name != "note"})


class PlanNamesGhost(Base):
    def plan(self, model, targets=None):
        made = super().plan(model, targets)
        return changed(made, modules=(*made.modules, PlannedModule("layers.7.ghost", False, "too small")))


class PlanWithoutReasons(Base):
    def plan(self, model, targets=None):
        made = super().plan(model, targets)
        return changed(made, modules=tuple(m if m.touched else changed(m, reason="") for m in made.modules))


class PlanWithoutClaims(Base):
    def plan(self, model, targets=None):
        made = super().plan(model, targets)
        return changed(made, modules=tuple(changed(m, claims=()) for m in made.modules))


class PlanForgetsLinear(Base):
    def plan(self, model, targets=None):
        made = super().plan(model, targets)
        return made if targets is None else changed(made, modules=made.modules[:-1])


class PlanIgnoresTargets(Base):
    def plan(self, model, targets=None):
        super().plan(model, targets)
        return super().plan(model, None)


class PlanWithListNotes(Base):
    def plan(self, model, targets=None):
        return changed(super().plan(model, targets), notes=["a remark"])


class PlanIgnoresUnmatched(Base):
    def plan(self, model, targets=None):
        try:
            return super().plan(model, targets)
        except CompositionError:
            return super().plan(model, None)


# ---- apply


def widen(module, inputs, output):
    """Double the logits' last dimension, as a forward hook."""
    output.logits = torch.cat([output.logits, output.logits], dim=-1)
    return output


class ApplyWidensOutput(Base):
    def apply(self, model, plan):
        super().apply(model, plan)
        model.register_forward_hook(widen)


class ApplyReplacesParameters(Base):
    def apply(self, model, plan):
        super().apply(model, plan)
        for _, module in self._masked(model):
            module.weight = nn.Parameter(module.weight.detach().clone())


class ApplyPrunesInPlace(Base):
    def apply(self, model, plan):
        super().apply(model, plan)
        with torch.no_grad():
            for _, module in self._masked(model):
                module.weight.mul_(module.mask)


class ApplyForgetsMode(Base):
    def apply(self, model, plan):
        super().apply(model, plan)
        for _, module in self._masked(model):
            module.train()


class QuietNorm(nn.LayerNorm):
    """Another class that computes the same."""


class ApplyTouchesMore(Base):
    def apply(self, model, plan):
        super().apply(model, plan)
        model.norm.__class__ = QuietNorm


class ApplyHalfway(Base):
    def apply(self, model, plan):
        modules = dict(model.named_modules())
        for line in plan.touched:
            if line.name not in modules:
                raise CompositionError(f"{line.name!r} is no module of this model")
            replace(model, line.name, MaskedLinear.around(modules[line.name], self.config.density))


class AppliesTwice(Base):
    def plan(self, model, targets=None):
        made = super().plan(model, targets)
        shared = (Claim("weight.mask", exclusive=False),)
        lines = []
        for line in made.modules:
            if line.touched or "a MaskedLinear" in line.reason:
                lines.append(PlannedModule(line.name, True, "its weights are pruned", shared))
            else:
                lines.append(line)
        return changed(made, modules=tuple(lines))

    def apply(self, model, plan):
        modules = dict(model.named_modules())
        for line in plan.touched:
            if not isinstance(modules.get(line.name), nn.Linear):
                raise CompositionError(f"{line.name!r} is no nn.Linear of this model")
        for line in plan.touched:
            replace(model, line.name, MaskedLinear.around(modules[line.name], self.config.density))


# ---- state


class SharingLinear(MaskedLinear):
    def __deepcopy__(self, memo):
        return self


class DeepcopyShares(Base):
    layer = SharingLinear


class DoesNotPickle(Base):
    def apply(self, model, plan):
        super().apply(model, plan)
        for _, module in self._masked(model):
            module.note = lambda: None


class FadingLinear(MaskedLinear):
    gain = 1.0

    def forward(self, input):
        return super().forward(input) * (1.0 if self.training else self.gain)


class OutputOutsideState(Base):
    layer = FadingLinear

    def on_step(self, model, step):
        for _, module in self._masked(model):
            module.gain = 1.0 + 0.01 * step
        return super().on_step(model, step)

    def finish(self, model):
        with torch.no_grad():
            for _, module in self._masked(model):
                module.weight.mul_(module.gain)
        super().finish(model)


class CountsOutsideState(Base):
    calls = 0

    def on_step(self, model, step):
        self.calls += 1
        return {"calls": float(self.calls)}


# ---- training


class CutLinear(MaskedLinear):
    def forward(self, input):
        return F.linear(input, (self.weight * self.mask).detach(), self.bias)


class CutsGradients(Base):
    layer = CutLinear


class AscendsTheLoss(Base):
    def on_gradients(self, model, step):
        for parameter in model.parameters():
            parameter.grad.neg_()


class DriftingLinear(MaskedLinear):
    @classmethod
    def around(cls, linear, density):
        made = super().around(linear, density)
        made.register_buffer("drift", torch.ones((), dtype=linear.weight.dtype, device=linear.weight.device))
        return made

    def forward(self, input):
        if self.training:
            self.drift = self.drift * 1.01
        return super().forward(input) * self.drift


class DriftsPerForward(Base):
    layer = DriftingLinear

    def finish(self, model):
        with torch.no_grad():
            for _, module in self._masked(model):
                module.weight.mul_(module.drift)
        super().finish(model)


class InfiniteMetric(Base):
    def on_step(self, model, step):
        return {**super().on_step(model, step), "signal_to_noise": float("inf")}


class EndsWithTheSchedule(Base):
    total = 0

    def on_train_start(self, model, total_steps):
        self.total = total_steps

    def on_step(self, model, step):
        schedule = [0.5] * self.total
        return {"share": schedule[step - 1]} | super().on_step(model, step)


class SearchReturnsNothing(Base):
    def search(self, trial, progress=None):
        return None


class SearchStaysOpen(Base):
    class Config(Magnitude.Config):
        interval: int | None = Field(2, ge=1, description="optimizer steps between two looks; None to search")

    @property
    def needs_search(self):
        return self.config.interval is None


class TriesWithoutNeed(Base):
    def search(self, trial, progress=None):
        trial(self, 2)
        return self


class MeddlingObserver(Base):
    def observer(self):
        return Magnitude()


# ---- finish


class FinishForgetsMask(Base):
    def finish(self, model):
        for _, module in self._masked(model):
            module.mask.fill_(True)
        super().finish(model)


class FinishCounts(Base):
    def finish(self, model):
        super().finish(model)
        times = getattr(model, "finishes", torch.zeros(()))
        model.register_buffer("finishes", times + 1)


class GainLinear(nn.Linear):
    gain = 1.0

    def forward(self, input):
        return super().forward(input) * self.gain


class FinishOutsideState(Base):
    def finish(self, model):
        masked = [name for name, _ in self._masked(model)]
        super().finish(model)
        for name in masked:
            module = model.get_submodule(name)
            module.__class__ = GainLinear
            module.gain = module.weight.abs().max().item()
            module.weight.data.div_(module.gain)


# ---- dtypes and devices


class StuckLinear(MaskedLinear):
    @classmethod
    def around(cls, linear, density):
        made = super().around(linear, density)
        made.kept = linear.weight.dtype
        return made

    def forward(self, input):
        return F.linear(input, (self.weight * self.mask).to(self.kept), self.bias)


class StuckToItsDtype(Base):
    layer = StuckLinear


class ScaledLinear(MaskedLinear):
    @classmethod
    def around(cls, linear, density):
        made = super().around(linear, density)
        made.register_buffer("scale", torch.ones(1, device=linear.weight.device))
        return made

    def forward(self, input):
        return F.linear(input, self.weight * self.mask * self.scale, self.bias)


class StateInFloat32(Base):
    layer = ScaledLinear


class AllocatesOnTheCPU(Base):
    def apply(self, model, plan):
        super().apply(model, plan)
        for _, module in self._masked(model):
            module.register_buffer("seen", torch.zeros(1))


class HomeboundLinear(MaskedLinear):
    @classmethod
    def around(cls, linear, density):
        made = super().around(linear, density)
        made.one = torch.ones(1)
        return made

    def forward(self, input):
        return super().forward(input) * self.one.to(input.dtype)


class StaysOnTheCPU(Base):
    layer = HomeboundLinear


# ---- survival


class ClaimsTheUnknown(Base):
    survives = frozenset({"deepcopy", "pickle", "winter"})


class BranchingLinear(MaskedLinear):
    def forward(self, input):
        if self.weight.sum().item() == 0:
            return input.new_zeros(*input.shape[:-1], self.out_features)
        return super().forward(input)


class BreaksTheGraph(Base):
    survives = frozenset({"compile"})
    layer = BranchingLinear


class DrawsPerProcess(Base):
    survives = frozenset({"ddp"})

    def on_step(self, model, step):
        with torch.no_grad():
            for _, module in self._masked(model):
                module.weight.add_(torch.randn_like(module.weight), alpha=1e-3)
        return super().on_step(model, step)


class DrawsPerProcessSuite(Suite):
    plugin = DrawsPerProcess


class LocalMasks(Base):
    survives = frozenset({"fsdp"})

    def on_step(self, model, step):
        for _, module in self._masked(model):
            module.mask.copy_(largest(module.weight.detach(), self.config.density))
        return {}


class LocalMasksSuite(Suite):
    plugin = LocalMasks


BROKEN = [
    Broken(Suite, "test_name_is_a_name", "letters, digits", BadName),
    Broken(Suite, "test_summary_is_one_line", "one line", LongSummary),
    Broken(
        Suite,
        "test_name_loads_through_the_registry",
        "could not be imported",
        Base,
        {"registry": ElsewhereRegistered.registry},
    ),
    Broken(Suite, "test_config_is_frozen", "must be frozen", MutableConfig),
    Broken(Suite, "test_config_refuses_unknown_options", "nothing was raised", LenientConfig),
    Broken(Suite, "test_config_fields_are_described", "no description for note", UndescribedField),
    Broken(Suite, "test_config_exports_a_json_schema", "exports no JSON schema", FieldWithoutSchema),
    Broken(Suite, "test_config_survives_json", "read back from JSON", OneWayField),
    Broken(Suite, "test_wrong_option_names_its_field", "must name 'density'", VagueOptionError),
    Broken(Suite, "test_plan_leaves_parameters_and_buffers_alone", "changed the parameter", PlanTouchesGradients),
    Broken(Suite, "test_plan_leaves_modules_alone", "'spare'", PlanAddsModule),
    Broken(Suite, "test_plan_leaves_training_mode_alone", "restore each module's own", PlanEvensMode),
    Broken(Suite, "test_plan_leaves_hooks_alone", "_forward_hooks", PlanLeavesHook),
    Broken(Suite, "test_plan_leaves_random_state_alone", "random generator", PlanDraws),
    Broken(Suite, "test_plan_is_repeatable", "two different plans", PlanCounts),
    Broken(
        Suite, "test_plan_names_its_transform", "plan.config rebuilds", PlanForgetsOption, {"options": {"note": "mine"}}
    ),
    Broken(Suite, "test_plan_names_modules_of_the_model", "layers.7.ghost", PlanNamesGhost),
    Broken(Suite, "test_plan_gives_reasons", "without a reason", PlanWithoutReasons),
    Broken(Suite, "test_plan_claims_what_it_changes", "without a claim", PlanWithoutClaims),
    Broken(Suite, "test_plan_mentions_every_matched_linear", "lm_head", PlanForgetsLinear),
    Broken(Suite, "test_plan_stays_within_its_targets", "and yet the plan changes", PlanIgnoresTargets),
    Broken(Suite, "test_plan_survives_json", "read back from JSON", PlanWithListNotes),
    Broken(Suite, "test_unmatched_target_is_an_error", "no.such.module", PlanIgnoresUnmatched),
    Broken(Suite, "test_apply_keeps_the_output_finite", "changed the output from", ApplyWidensOutput),
    Broken(Suite, "test_apply_keeps_parameter_identity", "replaced the parameters", ApplyReplacesParameters),
    Broken(Suite, "test_apply_keeps_parameter_values", "changed the values", ApplyPrunesInPlace),
    Broken(Suite, "test_apply_keeps_training_mode", "evaluation mode", ApplyForgetsMode),
    Broken(Suite, "test_apply_touches_only_planned_modules", "'norm'", ApplyTouchesMore),
    Broken(Suite, "test_apply_is_all_or_nothing", "before the first change", ApplyHalfway),
    Broken(Suite, "test_apply_twice_is_refused", "nothing was raised", AppliesTwice),
    Broken(Suite, "test_deepcopy_is_equal_and_apart", "changed the model", DeepcopyShares),
    Broken(Suite, "test_pickle_is_equal", "does not pickle", DoesNotPickle),
    Broken(Suite, "test_checkpoint_is_equal", "parameters and buffers", OutputOutsideState),
    Broken(Suite, "test_resume_is_bit_exact", "in buffers, not in attributes", CountsOutsideState),
    Broken(Suite, "test_gradients_reach_the_same_parameters", "straight-through", CutsGradients),
    Broken(Suite, "test_training_lowers_the_loss", "expected a lower one", AscendsTheLoss),
    Broken(Suite, "test_gradients_accumulate", "must not change state", DriftsPerForward),
    Broken(Suite, "test_metrics_are_finite_floats", "'signal_to_noise' = inf", InfiniteMetric),
    Broken(Suite, "test_on_step_outlives_the_schedule", "a run may go on for longer", EndsWithTheSchedule),
    Broken(Suite, "test_search_returns_a_closed_transform", "return the transform itself", SearchReturnsNothing),
    Broken(
        Suite,
        "test_search_returns_a_closed_transform",
        "still needs a search",
        SearchStaysOpen,
        {"search_options": {"interval": None}},
    ),
    Broken(Suite, "test_search_returns_a_closed_transform", "ran trials", TriesWithoutNeed),
    Broken(Suite, "test_observer_changes_nothing", "under the observer", MeddlingObserver),
    Broken(Suite, "test_finish_keeps_the_output", "finish_tolerance", FinishForgetsMask),
    Broken(Suite, "test_finish_is_idempotent", "'finishes'", FinishCounts),
    Broken(Suite, "test_finished_checkpoint_is_equal", "finished model gives other outputs", FinishOutsideState),
    Broken(Suite, "test_moves_to_each_dtype", "moved to torch.bfloat16", StuckToItsDtype),
    Broken(Suite, "test_applies_in_each_dtype", "applied to a torch.bfloat16 model", StateInFloat32),
    Broken(Suite, "test_applies_on_meta", "create state on weight.device", AllocatesOnTheCPU),
    Broken(Suite, "test_moves_to_the_gpu", "keep tensors in parameters and buffers", StaysOnTheCPU, gpu=True),
    Broken(Suite, "test_survives_is_known", "winter", ClaimsTheUnknown),
    Broken(Suite, "test_survives_compile", "torch.compile(fullgraph=True) raised", BreaksTheGraph),
    Broken(DrawsPerProcessSuite, "test_survives_parallel_training", "between the two processes"),
    Broken(LocalMasksSuite, "test_survives_parallel_training", "under fsdp a process failed"),
]
