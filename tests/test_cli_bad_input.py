"""``planish run`` with the installed plugins on broken recipes of every kind: one clear line, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

MODEL = {
    "name": "llama",
    "config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
    },
}
GOOD = {
    "model": MODEL,
    "data": {"text": "text", "seq_len": 16, "batch_size": 2, "val_batches": 1},
    "transforms": [{"use": "pretrain24", "targets": ["*.mlp.*"]}],
    "trainer": {"max_steps": 2, "warmup_steps": 1, "val_interval": 2, "threads": 1},
    "report": "out",
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    for name in ("one", "two", "three"):
        (tmp_path / "text" / f"{name}.txt").write_text(f"{name}: the quick brown fox jumps over the lazy dog.\n" * 60)
    return tmp_path


def recipe_file(folder, recipe):
    (folder / "recipe.yaml").write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
    return "recipe.yaml"


def expect_one_line(capsys, folder, recipe, *arguments, code, says):
    """Run in this process; check exit code and line, and that the folder is as it was."""
    from planish.cli.app import main

    path = recipe_file(folder, recipe)
    before = sorted(str(p) for p in folder.rglob("*"))
    capsys.readouterr()
    assert main(["run", path, "--json", *arguments]) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert says in lines[0]
    assert json.loads(out)["error"]["exit_code"] == code
    assert sorted(str(p) for p in folder.rglob("*")) == before, "nothing may be left behind"


def but(**changes):
    return {**GOOD, **changes}


def pretrain24(**config):
    return [{"use": "pretrain24", "targets": ["*.mlp.*"], "config": config}]


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            but(transforms=[{"use": "pretran24"}]),
            "no quantizer or sparsifier named 'pretran24'; did you mean 'pretrain24'?",
        ),
        (but(transforms=[{"use": "vnm"}]), "'vnm' is not installed; run: pip install planish-vnm"),
        (but(trainner={}), "trainner: unknown field; did you mean 'trainer'?"),
        (but(transforms=pretrain24(dense_finsh=0.1)), "dense_finsh: unknown field; did you mean 'dense_finish'?"),
        (but(trainer={"max_step": 3}), "trainer.max_step: unknown field; did you mean 'max_steps'?"),
        (but(data={"txt": "stdlib"}), "data.txt: unknown field; did you mean 'text'?"),
        (but(runner="lightening"), "no runner named 'lightening'; did you mean 'lightning'?"),
        (but(model={"name": "lama"}), "no model or architecture named 'lama'; did you mean 'llama'?"),
        (but(transforms=[{"use": "pretrain24", "targets": ["*.mpl.*"]}]), "'*.mpl.*' matches no module"),
        ("model: {name: llama\ndata: {}", "recipe.yaml is not YAML at line 2"),
        ("- just\n- a list", "recipe.yaml holds a list; a recipe is a mapping"),
        (but(transforms=pretrain24(dense_finish=1.5)), "dense_finish: input should be less than 1 (found 1.5)"),
        (but(trainer={"max_steps": 0}), "trainer.max_steps: input should be greater than or equal to 1 (found 0)"),
        (but(transforms=pretrain24() * 2), "transforms[0] (pretrain24) and transforms[1] (pretrain24) both change"),
        (but(model={"factory": "os:system"}), "would run Python code; add --trust-code"),
        (but(model={"path": "nowhere"}), "model.path: nowhere is not a directory"),
    ],
)
def test_a_wrong_recipe(folder, capsys, recipe, says):
    expect_one_line(capsys, folder, recipe, code=2, says=says)


def test_a_target_that_exists_and_cannot_be_sparse(folder, capsys):
    recipe = but(transforms=[{"use": "pretrain24", "targets": ["*.self_attn.*"]}])
    expect_one_line(capsys, folder, recipe, code=2, says="pretrain24 would change nothing")


def test_an_empty_corpus(folder, capsys):
    (folder / "empty").mkdir()
    (folder / "empty" / "a.txt").write_text("")
    expect_one_line(capsys, folder, but(data={**GOOD["data"], "text": "empty"}), code=2, says="empty")


def test_a_corpus_that_is_not_text(folder, capsys):
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 100)
    expect_one_line(capsys, folder, but(data={**GOOD["data"], "text": "noise.bin"}), code=2, says="noise.bin")


def test_a_report_folder_that_cannot_be(folder, capsys):
    (folder / "file").write_text("")
    expect_one_line(capsys, folder, but(report="file/out"), code=1, says="file/out")


def test_a_checkpoint_of_another_recipe(folder, capsys):
    from planish.cli.app import main

    path = recipe_file(folder, GOOD)
    assert main(["run", path, "--json", "--no-baseline"]) == 0
    capsys.readouterr()
    other = but(model={**MODEL, "config": {**MODEL["config"], "hidden_size": 32}})
    recipe_file(folder, other)
    before = (folder / "out" / "report.json").read_bytes()
    expect_one_line(capsys, folder, other, "--resume", "--no-baseline", code=2, says="recipe")
    assert (folder / "out" / "report.json").read_bytes() == before


def test_an_interruption_is_one_line_and_leaves_no_temporary_file(folder):
    recipe = but(trainer={**GOOD["trainer"], "max_steps": 100_000, "val_interval": 50_000})
    command = [sys.executable, "-m", "planish", "run", recipe_file(folder, recipe), "--no-baseline"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "out").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    for path in (folder / "out").rglob("*.json"):
        json.loads(path.read_text())
    assert not [p for p in (folder / "out").rglob(".*")], "no temporary file may stay"
