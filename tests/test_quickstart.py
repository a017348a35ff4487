"""The quickstart recipe and the example scripts, shortened, with the real 2:4 pre-training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import planish
import pytest
import torch
from planish.api import applied
from planish.interfaces import RunOptions, Sparsifier
from planish.plugins.manager import default_registry
from planish.recipe import read_recipe

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quickstart") / "out"
    small = [
        "trainer.max_steps=24",
        "trainer.warmup_steps=4",
        "trainer.val_interval=10",
        "data.max_bytes=300000",
        "data.val_batches=2",
        "data.batch_size=4",
        "trainer.threads=1",
        "transforms.0.config.mask_interval=4",
        f"report={out}",
    ]
    recipe = read_recipe(EXAMPLES / "quickstart.yaml", small)
    registry = default_registry()
    runner = registry.load(recipe.runner, "runner")(dict(recipe.trainer))
    runner.run(recipe, registry, RunOptions(progress=False))
    return out


def is_24(mask: torch.Tensor) -> bool:
    return bool(mask.reshape(-1, 4).sum(1).le(2).all())


def test_saved_masks_are_24(folder: Path):
    model = planish.load(folder / "sparse")
    live = next(iter(applied(model)))
    assert isinstance(live.transform, Sparsifier)
    masks = live.transform.masks(model)
    assert len(masks) == 9
    for name, mask in masks.items():
        assert is_24(mask), name
        assert is_24(mask.T.contiguous()), name
        assert mask.float().mean() == 0.5


def test_the_finished_model_is_dense_and_plain(folder: Path):
    model = planish.load(folder / "model")
    layer = model.model.layers[0].mlp.up_proj
    assert type(layer) is torch.nn.Linear
    assert (layer.weight != 0).float().mean() > 0.99


def test_report(folder: Path):
    report = json.loads((folder / "report.json").read_text())
    assert report["status"] == "finished"
    baseline, composed = report["variants"]["baseline"], report["variants"]["composed"]
    assert (
        baseline["series"]["flip_rate"]["steps"] == composed["series"]["flip_rate"]["steps"] == [4, 8, 12, 16, 20, 24]
    )
    for variant in (baseline, composed):
        assert variant["summary"]["val_loss"] < 5.0
    assert {row["operation"] for row in composed["kernels"]} == {"forward", "input_grad", "weight_grad"}
    assert len(composed["kernels"]) == 27
    page = (folder / "index.html").read_text()
    assert "flip rate" in page.lower().replace("_", " ")
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["three_verbs.py", "lightning_trainer.py"])
def test_scripts(script: str, tmp_path: Path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), "--steps", "6", "--out", str(tmp_path / "model")],
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "validation loss" in done.stdout
    assert (tmp_path / "model" / "planish.json").exists()
