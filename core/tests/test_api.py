"""The three verbs, and the plan that they share."""

import copy

import planish
import pytest
import torch
from planish.api import applied
from planish.errors import CompositionError, ConfigError, PluginError
from planish.interfaces import Claim, Plan, PlannedModule
from planish.interfaces.plan import conflicts
from tiny_plugins import Prune, Round, TinyNet


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyNet(8, 4, tied=True)


def test_plan_changes_nothing_and_gives_reasons(model, registry):
    before = copy.deepcopy(model.state_dict())
    made = planish.plan(model, "prune", registry=registry)
    assert [m.name for m in made.touched] == ["up", "down"]
    assert [(m.name, m.reason) for m in made.skipped] == [("head", "weight is tied to embed.weight")]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not list(applied(model))


def test_a_plan_prints_as_a_table_and_survives_json(model, registry):
    made = planish.plan(model, "prune", registry=registry, density=0.25)
    text = str(made)
    assert "prune: 2 modules changed, 1 left alone" in text
    assert "weight is tied to embed.weight" in text
    assert Plan.from_dict(made.to_dict()) == made


def test_a_plan_prints_names_with_brackets_literally():
    made = Plan("x", {}, (PlannedModule("a[0]", True, "because [b] it is", (Claim("y"),)),), ("note [c]",))
    assert "note [c]" in str(made)


def test_apply_works_in_place_and_drives_the_transform(model, registry):
    live = planish.apply(model, "prune", registry=registry, density=0.25)
    assert live.model is model
    assert list(applied(model)) == [live]
    assert (live.distribution, live.version) == ("planish-tiny", "1.2.0")
    live.on_train_start(10)
    live.on_gradients(0)
    assert live.on_step(1) == {"density": pytest.approx(0.25)}
    assert planish.finish(model) is model
    assert (model.up.weight == 0).float().mean() == pytest.approx(0.75)
    assert live.finished
    assert live.on_step(2) == {}


def test_apply_takes_the_plan_that_was_looked_at(model, registry):
    made = planish.plan(model, "prune", targets=["up"], registry=registry, density=0.25)
    live = planish.apply(model, made, registry=registry)
    assert live.plan == made
    assert not hasattr(model.down, "mask")
    with pytest.raises(ConfigError, match="apply\\(model, plan\\) takes the plan alone"):
        planish.apply(model, made, density=0.5)


def test_apply_takes_a_transform_object(model):
    live = planish.apply(model, Round(step=0.5), targets=["up"])
    assert live.distribution == "(in memory)"
    with pytest.raises(ConfigError, match=r"round: options \['step'\] beside a transform object"):
        planish.apply(model, Round(), step=0.5)


def test_wrong_names_options_and_targets(model, registry):
    with pytest.raises(PluginError, match="did you mean 'prune'"):
        planish.plan(model, "prnue", registry=registry)
    with pytest.raises(ConfigError, match=r"prune.densty: unknown field; did you mean 'density'"):
        planish.plan(model, "prune", registry=registry, densty=0.5)
    with pytest.raises(ConfigError, match=r"prune.density: input should be less than or equal to 1"):
        planish.plan(model, "prune", registry=registry, density=2)
    with pytest.raises(CompositionError, match="'donw' matches no module of TinyNet; did you mean 'down'"):
        planish.plan(model, "prune", registry=registry, targets=["donw"])


def test_nothing_to_change_is_an_error_with_the_reasons(model, registry):
    with pytest.raises(CompositionError, match=r"prune would change nothing in TinyNet \(head: weight is tied"):
        planish.apply(model, "prune", targets=["head"], registry=registry)
    assert not list(applied(model))


def test_exclusive_claims_on_one_module_name_both_and_the_way_out(model, registry):
    planish.apply(model, "prune", targets=["up"], registry=registry)
    with pytest.raises(CompositionError) as error:
        planish.apply(model, "thin", registry=registry)
    said = str(error.value)
    assert "prune and thin both change weight.mask of 'up'" in said
    assert "leave 'up' out of the targets" in said
    planish.apply(model, "thin", targets=["down"], registry=registry)
    planish.apply(model, "round", registry=registry)  # another aspect
    assert [live.plan.use for live in applied(model)] == ["prune", "thin", "round"]


def test_a_finished_transform_claims_nothing(model, registry):
    planish.finish(planish.apply(model, "prune", registry=registry))
    planish.apply(model, "thin", registry=registry)
    assert [live.plan.use for live in applied(model)] == ["prune", "thin"]


def test_claims_conflict_where_one_is_exclusive():
    def plan(exclusive):
        return Plan("x", {}, (PlannedModule("m", True, "", (Claim("matmul", exclusive),)),))

    assert list(conflicts(plan(True), plan(False))) == [("m", "matmul")]
    assert list(conflicts(plan(False), plan(True))) == [("m", "matmul")]
    assert list(conflicts(plan(False), plan(False))) == []


def test_finish_undoes_in_reverse_order(model):
    order = []

    class First(Round):
        def finish(self, model):
            order.append("first")

    class Second(Prune):
        def finish(self, model):
            order.append("second")

    planish.apply(model, First())
    planish.apply(model, Second())
    planish.finish(model)
    planish.finish(model)
    assert order == ["second", "first"], "each once, last applied first"


def test_a_copied_model_has_its_own_records(model, registry):
    planish.apply(model, "prune", registry=registry)
    twin = copy.deepcopy(model)
    (live,) = applied(twin)
    assert live.model is twin
    planish.finish(twin)
    assert (twin.up.weight == 0).any()
    assert not (model.up.weight == 0).any()
    assert not next(applied(model)).finished
