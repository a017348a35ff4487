"""Whatever is wrong with a recipe or its surroundings: one clear line, the right exit code, nothing half-written."""

import json
import os

import pytest

GOOD = {
    "model": {"name": "tiny", "config": {"width": 4}},
    "data": {"text": "count"},
    "transforms": [{"use": "prune"}],
    "trainer": {"max_steps": 3},
    "runner": "loop",
}


@pytest.fixture
def run(cli, tmp_path, monkeypatch):
    """Write a recipe, run it, and return (exit code, error line); check that nothing is left half-written."""
    monkeypatch.chdir(tmp_path)

    def run(recipe, *arguments):
        text = recipe if isinstance(recipe, str) else json.dumps(recipe)
        (tmp_path / "recipe.yaml").write_text(text)
        before = sorted(os.listdir(tmp_path))
        code, out, err = cli("run", "recipe.yaml", *arguments)
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.startswith("error: ")
        assert "Traceback" not in err
        assert sorted(os.listdir(tmp_path)) == before, "a failed run leaves nothing behind"
        return code, err

    return run


def broken(**changes):
    return {**GOOD, "report": "out", **changes}


def prune(**config):
    return broken(transforms=[{"use": "prune", "config": config}])


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            broken(transforms=[{"use": "prnue"}]),
            "transforms[0].use: no quantizer or sparsifier named 'prnue'; did you mean 'prune'?",
        ),
        (broken(transforms=[{"use": "vnm"}]), "is not installed; run: pip install planish-vnm"),
        (broken(transform=[]), "transform: unknown field; did you mean 'transforms'?"),
        (prune(densty=1), "config.densty: unknown field; did you mean 'density'?"),
        (prune(density=3), "density: input should be less than or equal to 1 (found 3)"),
        (broken(trainer={"max_step": 3}), "trainer.max_step: unknown field; did you mean 'max_steps'?"),
        (broken(trainer={"max_steps": 0}), "trainer.max_steps: input should be greater than or equal to 1 (found 0)"),
        (broken(data={"txt": "count"}), "data.txt: unknown field; did you mean 'text'?"),
        (broken(data={"text": "empty"}), "data.text: 'empty' holds no text; name a file"),
        (broken(runner="lop"), "runner: no runner named 'lop'; did you mean 'loop'?"),
        (broken(model={"name": "tniy"}), "no model or architecture named 'tniy'; did you mean 'tiny'?"),
        (broken(model={"factory": "os:system"}), "would run Python code; add --trust-code"),
        (broken(model={"path": "gone"}), "model.path: gone is not a directory"),
        (broken(transforms=[{"use": "prune", "targets": ["*.upp"]}]), "targets: '*.upp' matches no module of TinyNet"),
        (broken(transforms=[{"use": "prune", "targets": ["head"]}]), "would change nothing in TinyNet (head: weight"),
        (
            broken(transforms=[{"use": "prune"}, {"use": "thin"}]),
            "transforms[0] (prune) and transforms[1] (thin) both change weight.mask of 'up'",
        ),
        ("model: [unclosed", "recipe.yaml is not YAML at line 1"),
        ("", "recipe.yaml holds nothing"),
    ],
)
def test_wrong_input_exits_2(run, recipe, says):
    code, line = run(recipe)
    assert says in line
    assert code == 2


def test_a_wrong_override_exits_2(run):
    code, line = run(broken(), "trainer.max_steps")
    assert code == 2
    assert "is not KEY=VALUE" in line


def test_a_missing_recipe_exits_2(cli, tmp_path):
    code, _, err = cli("run", tmp_path / "gone.yaml")
    assert code == 2
    assert err == f"error: cannot read recipe {tmp_path / 'gone.yaml'}: No such file or directory; check the path\n"


def test_an_unwritable_report_folder_exits_1(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, line = run(broken(report="file/out"))
    assert code == 1
    assert "cannot create folder file/out: Not a directory; choose another folder" in line


def test_a_full_disk_exits_1(run):
    code, line = run(broken(data={"text": "full"}))
    assert code == 1
    assert "No space left on device" in line


def test_an_interruption_exits_1(run):
    code, line = run(broken(data={"text": "interrupt"}))
    assert code == 1
    assert line == "error: interrupted; nothing is left half-written\n"


def test_a_bug_exits_1_and_points_to_debug(run):
    code, line = run(broken(data={"text": "bug"}))
    assert code == 1
    assert line == "error: RuntimeError: first line second line; run with --debug for the traceback\n"


def test_every_problem_has_its_line(cli, tmp_path):
    recipe = broken(transforms=[{"use": "prnue"}, {"use": "round", "config": {"step": 0}}], trainer={"lr": -1}, data={})
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    code, _, err = cli("run", tmp_path / "recipe.yaml")
    assert code == 2
    assert [line.split("recipe.yaml: ")[1].split(": ")[0] for line in err.splitlines()] == [
        "transforms[0].use",
        "transforms[1].config.step",
        "data.text",
        "trainer.lr",
    ]


def test_a_failed_run_leaves_an_earlier_report(cli, tmp_path):
    (tmp_path / "recipe.yaml").write_text(json.dumps(broken(report=str(tmp_path / "out"))))
    assert cli("run", tmp_path / "recipe.yaml")[0] == 0
    before = (tmp_path / "out" / "report.json").read_bytes()
    assert cli("run", tmp_path / "recipe.yaml", "data.text=interrupt")[0] == 1
    assert (tmp_path / "out" / "report.json").read_bytes() == before
