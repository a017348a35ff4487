"""``planish new``: every generated project installs, is listed, and keeps its contract; wrong input writes nothing."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from planish.cli.app import main
from planish.cli.new import KINDS, render
from planish.plugins.registry import Registry

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Generate one project of each kind and install them all; return the folder and the installation's path."""
    folder = tmp_path_factory.mktemp("new")
    for kind in KINDS:
        assert main(["new", kind, f"my-{kind}", "--out", str(folder / f"my-{kind}")], Registry()) == 0
    target = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    projects = [str(folder / f"my-{kind}") for kind in KINDS]
    subprocess.run([*command, "--target", str(target), *projects], check=True, env=ENVIRONMENT)
    return folder, target


def run(target: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True)


def test_installed_projects_are_listed(installed):
    folder, target = installed
    done = run(target, "-m", "planish.cli.app", "plugins", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    rows = {row["name"]: row for row in (listed["plugins"] if isinstance(listed, dict) else listed)}
    for kind in KINDS:
        assert rows[f"my-{kind}"]["status"] == "ok"
        assert rows[f"my-{kind}"]["kind"] == kind.replace("-", "_")


def test_generated_suites_pass(installed):
    folder, target = installed
    options = [
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "--rootdir=.",
        "-rA",
    ]  # one process: torch is imported once
    done = run(target, "-m", "pytest", *options, *(f"my-{kind}" for kind in KINDS), cwd=folder)
    assert done.returncode == 0, done.stdout
    for kind in KINDS:
        assert f"PASSED my-{kind}/tests/test_contract.py" in done.stdout


def test_a_name_already_installed_is_refused(installed):
    folder, target = installed
    done = run(target, "-m", "planish.cli.app", "new", "attention", "my-quantizer", cwd=folder / "site")
    assert done.returncode == 2
    assert "'my-quantizer' is a quantizer of the installed my-quantizer" in done.stderr
    assert not (folder / "site" / "my-quantizer").exists()


DELETED = {
    "quantizer": "finish",
    "sparsifier": "masks",
    "attention": "supports",
    "language-model": "build",
    "video-model": "loss",
    "data-filter": "decide",
    "filter-engine": "run",
}


@pytest.mark.parametrize("kind", KINDS)
def test_deleting_a_method_fails_with_a_sentence_that_names_it(kind, tmp_path, monkeypatch):
    name = f"cut-{kind}"
    package, module = name.replace("-", "_"), kind.replace("-", "_")
    project = render(kind, name)
    source = f"src/{package}/{module}.py"
    project[source] = without_method(project[source], DELETED[kind])
    for path, text in project.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "src")
    spec = importlib.util.spec_from_file_location(f"{package}_contract", tmp_path / "tests" / "test_contract.py")
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    suite = tests.TestContract()
    suite.installed = False
    with pytest.raises(pytest.fail.Exception) as failure:
        suite.test_config_survives_json()
    class_name = suite.plugin.__name__
    assert str(failure.value).startswith(f"{class_name} leaves abstract: {DELETED[kind]}; implement it")


def without_method(source: str, method: str) -> str:
    """Return the source without the method of its last class."""
    tree = ast.parse(source)
    kept = source.splitlines(keepends=True)
    (*_, plugin) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    (found,) = [node for node in plugin.body if isinstance(node, ast.FunctionDef) and node.name == method]
    first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    return "".join(kept[: first - 1] + kept[found.end_lineno :])


# ---- what is printed


def test_json_names_the_files(tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["new", "sparsifier", "demo", "--out", str(folder), "--json"], Registry()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["kind"] == "sparsifier"
    assert answer["folder"] == str(folder)
    assert "src/demo/sparsifier.py" in answer["files"]
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == set(answer["files"])


def test_the_next_commands_are_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "data-filter", "dusk"], Registry()) == 0
    assert "pip install -e dusk" in capsys.readouterr().out
    assert (tmp_path / "dusk" / "pyproject.toml").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_to_fill_in(kind):
    for path, text in render(kind, "my-method").items():
        assert "$" not in text, path
        if path.endswith(".py"):
            compile(text, path, "exec")


# ---- wrong input


def refused(arguments, capsys, code=2) -> str:
    assert main(["new", *arguments], Registry()) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    return captured.err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("2fast", "is no name for a package"),
        ("My-Method", "lower-case"),
        ("my method", "is no name for a package"),
        ("../up", "is no name for a package"),
        ("my--method", "is no name for a package"),
        ("class", "a word of Python"),
        ("torch", "would hide the module"),
        ("json", "would hide the module"),
        ("jetfire", "the plugin of planish-jetfire"),
    ],
)
def test_bad_name_is_refused(name, says, tmp_path, capsys):
    assert says in refused(["sparsifier", name, "--out", str(tmp_path / "out")], capsys)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind_is_refused_with_the_nearest(tmp_path, capsys):
    error = refused(["sparsifer", "demo", "--out", str(tmp_path / "out")], capsys)
    assert "did you mean 'sparsifier'" in error
    assert list(tmp_path.iterdir()) == []


def test_folder_with_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    error = refused(["sparsifier", "demo", "--out", str(tmp_path / "demo")], capsys)
    assert "is not empty" in error
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["notes.txt"]


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "demo").mkdir()
    assert main(["new", "sparsifier", "demo", "--out", str(tmp_path / "demo")], Registry()) == 0
    assert (tmp_path / "demo" / "pyproject.toml").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_file_in_the_way_is_refused(tmp_path, capsys):
    (tmp_path / "demo").write_text("mine")
    assert "is a file" in refused(["sparsifier", "demo", "--out", str(tmp_path / "demo")], capsys)
    assert (tmp_path / "demo").read_text() == "mine"


def test_current_folder_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is the current folder" in refused(["sparsifier", "demo", "--out", "."], capsys)


def test_unwritable_folder_is_failed_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    error = refused(["sparsifier", "demo", "--out", str(tmp_path / "file" / "demo")], capsys, code=1)
    assert "choose another folder" in error


def test_nothing_is_half_written(tmp_path, capsys, monkeypatch):
    write = Path.write_text
    written = []

    def full_after_two(self, *arguments, **options):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(self)
        return write(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full_after_two)
    error = refused(["sparsifier", "demo", "--out", str(tmp_path / "demo")], capsys, code=1)
    assert "No space left on device" in error
    assert list(tmp_path.iterdir()) == []
