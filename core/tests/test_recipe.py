"""Recipes: reading, overriding, building, composing."""

from pathlib import Path

import pytest
import tiny_plugins
import torch
from planish.api import applied, plan
from planish.errors import CheckpointError, CompositionError, ConfigError, PluginError, UnsupportedError
from planish.interfaces import Claim
from planish.interfaces.plan import Plan
from planish.plugins.manager import PluginManager
from planish.recipe import ModelSpec, TransformSpec, build_model, compose, json_schema, read_recipe
from planish.recipe.compose import check_transforms, plan_all
from planish.recipe.source import installed_schema
from tiny_plugins import TinyNet

GOOD = """
model: {name: tiny, config: {width: 4}}
data: {text: count}
transforms:
  - {use: prune, targets: [up], config: {density: 0.25}}
  - {use: round}
trainer: {max_steps: 3}
report: out/here
runner: loop
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return path

    return write


def test_a_recipe_is_read_with_its_defaults(write):
    recipe = read_recipe(write(GOOD))
    assert recipe.seed == 0
    assert recipe.report == Path("out/here")
    assert recipe.transforms[0] == TransformSpec(use="prune", targets=("up",), config={"density": 0.25})
    assert recipe.transforms[1].targets is None


def test_overrides_reach_into_lists_and_make_mappings(write):
    recipe = read_recipe(
        write(GOOD), ["trainer.max_steps=50", "transforms.0.config.density=.5", "data.extra.deep=[1, x]", "seed=7"]
    )
    assert recipe.trainer == {"max_steps": 50}
    assert recipe.transforms[0].config == {"density": 0.5}
    assert recipe.data == {"text": "count", "extra": {"deep": [1, "x"]}}
    assert recipe.seed == 7


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.max_steps", "override 'trainer.max_steps' is not KEY=VALUE, such as trainer.max_steps=50"),
        ("=3", "is not KEY=VALUE"),
        ("transforms.5.use=x", "'5' is no position in a list of 2"),
        ("transforms.x=1", "'x' is no position in a list of 2"),
        ("seed.deep=1", "seed is not a mapping or list"),
        ("trainer.a=[1", "the value is not YAML"),
        ("sed=1", "sed: unknown field; did you mean 'seed'?"),
    ],
)
def test_a_wrong_override_is_named(write, override, says):
    with pytest.raises(ConfigError) as error:
        read_recipe(write(GOOD.replace("report", "seed: 1\nreport")), [override])
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds nothing; a recipe is a mapping with the keys model, data, transforms, trainer"),
        ("- a\n- b\n", "holds a list; a recipe is a mapping"),
        ("just words", "holds a str; a recipe is a mapping"),
        ("model: {name: tiny\ndata: {}\n", "is not YAML at line 2, column 5"),
        ("model: tiny\n\tdata: {}\n", "is not YAML at line 2, column 1: found character"),
        ("model: !!python/object/apply:os.system [ls]\n", "is not YAML at line 1"),
        ("model: {name: tiny}\n", "recipe.yaml: data: this field is required"),
        ("modle: {}\nmodel: {name: a}\ndata: {}\n", "modle: unknown field; did you mean 'model'?"),
        ("model: {name: a}\ndata: {}\nseed: -1\n", "seed: input should be greater than or equal to 0 (found -1)"),
        ("model: {}\ndata: {}\n", "model: give exactly one of name, path and factory, not none"),
        (
            "model: {name: a, path: b}\ndata: {}\n",
            "model: give exactly one of name, path and factory, not name and path",
        ),
        ("model: {path: a, config: {b: 1}}\ndata: {}\n", "config does not go with path"),
        ("model: {name: a}\ndata: {}\ntransforms: [{use: x, targets: []}]\n", "transforms[0].targets: "),
        ("model: {name: a}\ndata: {}\ntransforms: [{us: x}]\n", "transforms[0].us: unknown field; did you mean 'use'?"),
    ],
)
def test_a_broken_recipe_is_named_with_its_place(write, text, says):
    with pytest.raises(ConfigError) as error:
        read_recipe(write(text))
    assert says in str(error.value)
    assert all("recipe.yaml" in line for line in str(error.value).splitlines())


def test_a_file_that_is_no_text_or_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read recipe .*gone.yaml: No such file or directory"):
        read_recipe(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=r"cannot read recipe .*: Is a directory"):
        read_recipe(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="is not text"):
        read_recipe(tmp_path / "binary.yaml")


def test_models_are_built_by_name_factory_and_path(registry, tmp_path):
    assert build_model(ModelSpec(name="tiny", config={"width": 4}), registry).up.in_features == 4
    factory = ModelSpec(factory="tiny_plugins:TinyNet", config={"vocab_size": 4, "width": 2, "tied": False})
    with pytest.raises(ConfigError, match=r"model.factory: 'tiny_plugins:TinyNet' would run Python code"):
        build_model(factory, registry)
    assert isinstance(build_model(factory, registry, trust_code=True), TinyNet)

    import planish

    planish.save(
        TinyNet(8, 4, True), tmp_path / "m", model_spec=ModelSpec(name="tiny", config={"vocab_size": 8, "width": 4})
    )
    assert build_model(ModelSpec(path=tmp_path / "m"), registry).up.in_features == 4


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ({"name": "tinny"}, ConfigError, "model.name: no model or architecture named 'tinny'; did you mean 'tiny'?"),
        ({"name": "subllm"}, PluginError, "'subllm' is not installed; run: pip install planish-subllm"),
        ({"name": "tiny", "config": {"widht": 1}}, ConfigError, "tiny.widht: unknown field; did you mean 'width'?"),
        ({"path": "no/where"}, ConfigError, "model.path: no/where is not a directory"),
        ({"path": "."}, CheckpointError, "holds no model that an installed plugin reads"),
        ({"factory": "os"}, ConfigError, "'os' does not read module:function"),
        ({"factory": "os:gone"}, ConfigError, "'os:gone' failed: AttributeError"),
        ({"factory": "builtins:dict"}, ConfigError, "returned a dict; expected an nn.Module"),
    ],
)
def test_a_model_that_cannot_be_built(registry, spec, error, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        build_model(ModelSpec(**spec), registry, trust_code=True)
    assert says in str(raised.value)


def test_where_nothing_builds_models_the_install_line_is_given():
    with pytest.raises(ConfigError, match="nothing builds models; pip install planish-lightning"):
        build_model(ModelSpec(name="llama"), PluginManager().registry)


def specs(*uses, **more):
    return [TransformSpec(use=use, **more) for use in uses]


def test_compose_applies_in_order(registry):
    model = TinyNet(8, 4, True)
    lives = compose(model, specs("prune", "round"), registry)
    assert [live.plan.use for live in lives] == ["prune", "round"]


def test_conflicts_are_found_before_anything_is_changed(registry):
    model = TinyNet(8, 4, True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CompositionError) as error:
        compose(model, specs("prune", "round", "thin"), registry)
    said = str(error.value)
    assert "transforms[0] (prune) and transforms[2] (thin) both change weight.mask of 'up'" in said
    assert "leave 'up' out of the targets of one of the two" in said
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.fixture
def prune_comes_first(registry, monkeypatch):
    def ordered(self, model, targets=None):
        return tiny_plugins._plan(self, model, targets, (Claim("weight.mask", before=("weight.values",)),))

    monkeypatch.setattr(registry.load("prune", "sparsifier"), "plan", ordered)


@pytest.mark.usefixtures("prune_comes_first")
def test_a_wrong_order_is_found_before_anything_is_changed(registry):
    model = TinyNet(8, 4, True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CompositionError) as error:
        compose(model, specs("round", "prune"), registry)
    said = str(error.value)
    assert "transforms[0] (round) changes weight.values of 'up' before transforms[1] (prune) changes its weight" in said
    assert "put prune before round" in said
    assert model.state_dict().keys() == before.keys()
    assert not list(applied(model))
    made = plan(model, "prune", registry=registry)
    assert Plan.from_dict(made.to_dict()) == made
    # Where the two meet on no module, any order does.
    compose(model, [*specs("round", targets=("up",)), *specs("prune", targets=("down",))], registry)
    with pytest.raises(CompositionError, match="apply prune to a model before round"):
        plan(model, "prune", registry=registry, targets=["up"])


def test_a_refusal_that_no_claim_foretells_says_what_was_done(registry, monkeypatch):
    def refuse(self, model, plan):
        raise UnsupportedError("no grid here")

    monkeypatch.setattr(registry.load("round", "quantizer"), "apply", refuse)
    model = TinyNet(8, 4, True)
    with pytest.raises(UnsupportedError) as error:
        compose(model, specs("prune", "round"), registry)
    assert str(error.value) == (
        "transforms[1] (round): no grid here; prune had been applied, so build the model anew before you try again"
    )
    with pytest.raises(UnsupportedError, match=r"^no grid here$"):
        compose(TinyNet(8, 4, True), specs("round"), registry)


@pytest.mark.parametrize(
    ("transforms", "error", "says"),
    [
        (
            specs("prnue"),
            PluginError,
            "transforms[0].use: no quantizer or sparsifier named 'prnue'; did you mean 'prune'?",
        ),
        (specs("round", "vnm"), PluginError, "transforms[1].use: quantizer or sparsifier 'vnm' is not installed"),
        (
            specs("prune", config={"density": 0}),
            ConfigError,
            "transforms[0].config.density: input should be greater than 0",
        ),
        (specs("prune", config={"densty": 1}), ConfigError, "transforms[0].config.densty: unknown field; did you mean"),
        (
            specs("round", "prune", targets=("head",)),
            CompositionError,
            "transforms[0] (round): round would change nothing in TinyNet (head: weight is tied to embed.weight)",
        ),
        (specs("prune", targets=("upp",)), CompositionError, "transforms[0] (prune): targets: 'upp' matches no module"),
    ],
)
def test_a_wrong_transform_is_named_with_its_place(registry, transforms, error, says):
    with pytest.raises(error) as raised:
        plan_all(TinyNet(8, 4, True), transforms, registry)
    assert says in str(raised.value)


def test_positions_in_messages_can_begin_later(registry):
    with pytest.raises(PluginError, match=r"^transforms\[3\]\.use"):
        check_transforms(specs("nope"), registry, first=3)


def test_the_schema_knows_the_fields():
    schema = json_schema()
    assert set(schema["properties"]) == {"model", "data", "transforms", "trainer", "report", "seed", "runner"}
    assert schema["required"] == ["model", "data"]


def test_the_schema_with_installed_plugins_checks_their_options(registry):
    schema = installed_schema(registry)
    rules = {r["if"]["properties"]["use"]["const"]: r["then"] for r in schema["$defs"]["TransformSpec"]["allOf"]}
    assert set(rules) == {"round", "prune", "thin"}
    name = rules["prune"]["properties"]["config"]["$ref"].removeprefix("#/$defs/")
    assert schema["$defs"][name]["properties"]["density"]["maximum"] == 1
    (rule,) = schema["allOf"]
    assert rule["if"] == {"properties": {"runner": {"const": "loop"}}, "required": ["runner"]}
