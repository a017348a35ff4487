"""Two sparsifications of one model in one run: composed where they touch different modules, refused where not."""

from __future__ import annotations

from pathlib import Path

import planish
import pytest
from planish.interfaces import RunOptions
from planish.plugins.manager import default_registry
from planish.recipe import Recipe

VALUES = {
    "model": {
        "name": "llama",
        "config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32,
        },
    },
    "data": {"text": "stdlib", "max_bytes": 200_000, "seq_len": 32, "batch_size": 4, "val_batches": 2},
    "trainer": {"max_steps": 12, "val_interval": 6, "threads": 1, "lr": 0.01},
}
FIRST = {"use": "pretrain24", "targets": ["*.layers.0.mlp.*"], "config": {"mask_interval": 3}}


def run(tmp_path: Path, second: dict) -> dict:
    recipe = Recipe.model_validate({**VALUES, "transforms": [FIRST, second], "report": tmp_path / "out"})
    registry = default_registry()
    runner = registry.load("lightning", "runner")(dict(recipe.trainer))
    return runner.run(recipe, registry, RunOptions(progress=False)).report


def test_two_methods_on_different_layers(tmp_path):
    second = {"use": "pretrain24", "targets": ["*.layers.1.mlp.*"], "config": {"method": "sste"}}
    report = run(tmp_path, second)
    composed = report["variants"]["composed"]
    assert [plan["config"]["method"] for plan in composed["plans"]] == ["fst", "sste"]
    assert composed["series"]["loss"]["values"][-1] < composed["series"]["loss"]["values"][0]
    model = planish.load(tmp_path / "out" / "model")
    weight = model.model.layers[1].mlp.up_proj.weight
    assert (weight.reshape(-1, 4) != 0).sum(1).le(2).all()


def test_the_same_layer_twice_is_refused(tmp_path):
    second = {"use": "pretrain24", "targets": ["*.mlp.*"], "config": {"method": "sste"}}
    with pytest.raises(planish.CompositionError, match=r"transforms\[0\].*transforms\[1\].*leave .* out of the"):
        run(tmp_path, second)
    assert not (tmp_path / "out").exists()
