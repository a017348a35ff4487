"""The INT8 recipe, shortened."""

from __future__ import annotations

import json
from pathlib import Path

import planish
import torch
from planish.interfaces import RunOptions
from planish.plugins.manager import default_registry
from planish.recipe import read_recipe

RECIPE = Path(__file__).parents[1] / "examples" / "jetfire.yaml"


def test_the_recipe_runs_and_its_model_is_plain(tmp_path: Path) -> None:
    small = [
        "trainer.max_steps=6", "trainer.warmup_steps=2", "trainer.val_interval=6", "data.max_bytes=300000",
        "data.val_batches=2", "data.batch_size=4", "trainer.threads=1", f"report={tmp_path / 'out'}",
    ]  # fmt: skip
    recipe = read_recipe(RECIPE, small)
    registry = default_registry()
    registry.load(recipe.runner, "runner")(dict(recipe.trainer)).run(recipe, registry, RunOptions(progress=False))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "jetfire" in json.dumps(report)
    model = planish.load(tmp_path / "out" / "model")
    assert not any("jetfire" in name for name in model.state_dict())
    assert torch.isfinite(model(torch.arange(8).view(1, -1)).logits).all()
