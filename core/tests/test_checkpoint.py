"""Saving and loading transformed models."""

import json

import planish
import pytest
import torch
from planish.api import applied
from planish.checkpoint import MANIFEST, WEIGHTS
from planish.errors import CheckpointError, ConfigError, WorkError
from planish.plugins.manager import PluginManager
from planish.recipe import ModelSpec
from tiny_plugins import TinyNet

SPEC = ModelSpec(name="tiny", config={"vocab_size": 8, "width": 4})


@pytest.fixture
def model(registry):
    torch.manual_seed(0)
    return TinyNet(8, 4, tied=True)


def same(first, second):
    tokens = torch.arange(8)
    return torch.equal(first(tokens), second(tokens))


@pytest.mark.parametrize("finished", [False, True])
def test_round_trip(tmp_path, model, registry, finished):
    planish.apply(model, "prune", targets=["up"], registry=registry, density=0.25)
    planish.apply(model, "round", registry=registry, step=0.25)
    if finished:
        planish.finish(model)
    folder = planish.save(model, tmp_path / "model", model_spec=SPEC, registry=registry)
    again = planish.load(folder, registry=registry)
    assert same(model, again)
    assert [live.finished for live in applied(again)] == [finished, finished]
    assert [live.plan for live in applied(again)] == [live.plan for live in applied(model)]
    assert torch.equal(again.up.mask, model.up.mask)
    planish.finish(again)
    planish.finish(model)
    assert same(model, again)


def test_nothing_in_a_checkpoint_is_code(tmp_path, model, registry):
    planish.save(model, tmp_path / "m", model_spec=SPEC, registry=registry)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [WEIGHTS, MANIFEST]
    json.loads((tmp_path / "m" / MANIFEST).read_text())


def test_tied_weights_are_stored_once_and_come_back_tied(tmp_path, model, registry):
    planish.save(model, tmp_path / "m", model_spec=SPEC, registry=registry)
    assert json.loads((tmp_path / "m" / MANIFEST).read_text())["tied"] == {"head.weight": "embed.weight"}
    again = planish.load(tmp_path / "m", registry=registry)
    assert again.head.weight is again.embed.weight
    assert same(model, again)


def test_load_into_a_given_model(tmp_path, model, registry):
    planish.save(model, tmp_path / "m", registry=registry)
    with pytest.raises(CheckpointError, match="does not say how its model is built; pass one"):
        planish.load(tmp_path / "m", registry=registry)
    assert same(model, planish.load(tmp_path / "m", TinyNet(8, 4, tied=True), registry=registry))


def test_another_models_checkpoint_is_refused(tmp_path, model, registry):
    planish.save(model, tmp_path / "m", model_spec=SPEC, registry=registry)
    with pytest.raises(
        CheckpointError, match=r"'embed.weight' has shape .8, 4., the model's has .9, 4.; .*another size"
    ):
        planish.load(tmp_path / "m", TinyNet(9, 4, tied=True), registry=registry)
    with pytest.raises(
        CheckpointError, match=r"lacks 1 tensors \('0.weight'.*has 6 that the model lacks.*another model"
    ):
        planish.load(tmp_path / "m", torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False)), registry=registry)


@pytest.fixture
def pruned(tmp_path, model, registry):
    planish.apply(model, "prune", registry=registry)
    return planish.save(model, tmp_path / "m", model_spec=SPEC, registry=registry)


def edit(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest.update(changes)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_missing_plugin_is_named(pruned):
    with pytest.raises(
        CheckpointError, match=r"was made with 'prune' of planish-tiny 1\.2\.0: no quantizer or sparsifier"
    ):
        planish.load(pruned, TinyNet(8, 4, True), registry=PluginManager().registry)


@pytest.mark.parametrize(("installed", "loads"), [("1.1.9", False), ("1.2.0", True), ("1.10", True), ("1.2rc1", False)])
def test_an_older_plugin_is_refused(pruned, installed, loads):
    import tiny_plugins

    manager = PluginManager()
    manager.register(tiny_plugins, "tiny", "planish-tiny", installed)
    if loads:
        planish.load(pruned, registry=manager.registry)
    else:
        with pytest.raises(
            CheckpointError, match=r"made with planish-tiny 1\.2\.0, installed is .*pip install -U 'planish-"
        ):
            planish.load(pruned, registry=manager.registry)


def test_a_newer_format_is_refused(pruned, registry):
    edit(pruned, format_version=99, planish="7.0")
    with pytest.raises(CheckpointError, match=r"format version 99, .* reads up to 1; pip install 'planish>=7\.0'"):
        planish.load(pruned, registry=registry)


def test_damage_is_said_to_be_damage(pruned, registry, tmp_path):
    with pytest.raises(CheckpointError, match="is no planish checkpoint"):
        planish.load(tmp_path / "nowhere", registry=registry)
    weights = (pruned / WEIGHTS).read_bytes()
    (pruned / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read"):
        planish.load(pruned, registry=registry)
    (pruned / MANIFEST).write_text("{")
    with pytest.raises(CheckpointError, match=r"planish.json is damaged"):
        planish.load(pruned, registry=registry)


def test_a_changed_recipe_no_longer_fits(pruned, registry):
    manifest = json.loads((pruned / MANIFEST).read_text())
    edit(pruned, transforms=[], model=manifest["model"])
    with pytest.raises(CheckpointError, match=r"has 2 that the model lacks .'down.mask'"):
        planish.load(pruned, registry=registry)


def test_code_runs_only_where_it_is_trusted(tmp_path, model, registry):
    spec = ModelSpec(factory="tiny_plugins:TinyNet", config={"vocab_size": 8, "width": 4, "tied": True})
    planish.save(model, tmp_path / "m", model_spec=spec, registry=registry)
    with pytest.raises(ConfigError, match="would run Python code; add --trust-code"):
        planish.load(tmp_path / "m", registry=registry)
    assert same(model, planish.load(tmp_path / "m", registry=registry, trust_code=True))


def test_a_failed_save_leaves_the_earlier_checkpoint(tmp_path, model, registry, monkeypatch):
    planish.save(model, tmp_path / "m", model_spec=SPEC, registry=registry)
    before = (tmp_path / "m" / WEIGHTS).read_bytes()

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("planish.checkpoint.save_file", full)
    with pytest.raises(WorkError, match="No space left on device"):
        planish.save(model, tmp_path / "m", model_spec=SPEC, registry=registry)
    assert (tmp_path / "m" / WEIGHTS).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("rebuilds", [True, False])
def test_what_a_transform_can_rebuild_may_be_missing(tmp_path, pruned, registry, monkeypatch, rebuilds):
    import tiny_plugins
    from safetensors.torch import load_file, save_file

    tensors = load_file(pruned / "model.safetensors")
    lost = {name: tensors.pop(name) for name in list(tensors) if name.endswith(".mask")}
    assert lost
    save_file(tensors, pruned / "model.safetensors")
    asked = []

    def rebuild(self, model, names):
        asked.append(sorted(names))
        for name in names:
            weight = model.get_parameter(name.removesuffix("mask") + "weight")
            assert torch.equal(weight, tensors[name.removesuffix("mask") + "weight"]), "the weights are loaded already"
            model.get_buffer(name).copy_(lost[name])

    monkeypatch.setattr(tiny_plugins.Prune, "rebuild", rebuild)
    if not rebuilds:
        with pytest.raises(CheckpointError, match=rf"lacks {len(lost)} tensors"):
            planish.load(pruned, registry=registry)
        assert asked == []
        return
    monkeypatch.setattr(tiny_plugins.Prune, "rebuildable", lambda self, model, missing: set(missing))
    loaded = planish.load(pruned, registry=registry)
    assert asked == [sorted(lost)]
    assert all(torch.equal(loaded.get_buffer(name), tensor) for name, tensor in lost.items())
