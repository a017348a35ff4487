"""A run that is killed, or stopped by Ctrl-C, and resumed ends with the numbers of one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RECIPE = """
model:
  name: llama
  config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2,
    max_position_embeddings: 32}
data: {text: stdlib, max_bytes: 200000, seq_len: 32, batch_size: 4, val_batches: 2}
transforms:
  - {use: pretrain24, targets: ["*.mlp.*"], config: {mask_interval: 4, decay: 1.0e-3}}
trainer: {max_steps: 60, val_interval: 20, checkpoint_every_steps: 4, threads: 1}
report: REPORT
"""


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(RECIPE.replace("REPORT", str(folder)))
    command = [sys.executable, "-m", "planish", "run", str(recipe), *more]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Read the run's progress up to a line that begins so."""
    deadline = time.monotonic() + 200
    assert process.stderr is not None
    for text in process.stderr:
        if text.startswith(line):
            return
        assert time.monotonic() < deadline, text
    pytest.fail(f"the run ended before {line!r}")


def results(folder: Path) -> tuple[dict[str, object], bytes]:
    report = json.loads((folder / "report.json").read_text())
    assert report["status"] == "finished"
    series = {
        (name, metric): values
        for name, variant in report["variants"].items()
        for metric, values in variant["series"].items()
        if metric != "step_ms"
    }
    assert ("composed", "flip_rate") in series
    return series, (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], bytes]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start(folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return results(folder)


@pytest.mark.slow
def test_killed_twice(whole, tmp_path):
    folder = tmp_path / "run"
    for line, more in (("dense baseline 20/60", ()), ("pretrain24 40/60", ("--resume",))):
        process = start(folder, *more)
        wait_for(process, line)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert json.loads((folder / "report.json").read_text())["status"] == "running"
    process = start(folder, "--resume")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert results(folder) == whole


@pytest.mark.slow
def test_interrupted(whole, tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for(process, "pretrain24 20/60")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert "of 60 of the composed run; its state is kept" in told[0]
    assert told[0].endswith("run the same command with --resume to continue")
    assert "Traceback" not in errors
    process = start(folder, "--resume")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert results(folder) == whole
