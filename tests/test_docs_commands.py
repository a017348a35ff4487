"""Every command and every Python example in the README files and the docs runs.

A fenced ``bash`` block is executed in an empty folder that has the examples; ``python`` blocks of one page are executed
as one script; ``yaml`` blocks that are recipes are validated. A block may be preceded by one comment:

* ``<!-- executed by: PATH -->``: too slow for here; the commands must stand in that file, which runs them.
* ``<!-- needs: gpu -->``: not executed without a GPU; its verbs must exist.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"(?:<!-- (?P<key>executed by|needs): (?P<value>.+?) -->\s*\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(
            path
            for member in ("core", "kernels", "plugins/*", "integrations/*")
            for path in ROOT.glob(f"{member}/README.md")
        ),
    ]
)


@dataclass(frozen=True)
class Block:
    """A fenced block, and the comment that stands before it."""

    language: str
    text: str
    key: str | None
    value: str | None


def blocks(page: Path, language: str) -> list[Block]:
    """Return the page's blocks of one language, without their indentation."""
    found = []
    for match in BLOCK.finditer(page.read_text()):
        if match["language"] == language:
            width = len(match["indent"])
            text = "\n".join(line[width:] for line in match["text"].splitlines())
            found.append(Block(language, text, match["key"], match["value"]))
    return found


def pages_with(language: str) -> list[object]:
    return [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES if blocks(p, language)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder that has the examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def environment() -> dict[str, str]:
    """Return an environment in which ``planish`` and ``python`` are this interpreter's."""
    scripts = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("page", pages_with("bash"))
def test_shell_commands_run(page: Path, folder: Path) -> None:
    for block in blocks(page, "bash"):
        if block.key == "executed by":
            assert block.value is not None
            check_executed_elsewhere(page, block, ROOT / block.value)
            continue
        if block.key == "needs":
            check_verbs_exist(page, block)
            continue
        if page.name == "CONTRIBUTING.md":
            continue  # the set-up itself: this very test run is its result
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=420,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{page}: {block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def check_executed_elsewhere(page: Path, block: Block, runner: Path) -> None:
    """Check that the file that is said to run the block's commands names each of them."""
    # CI reaches the tools of its own environments by path: `"$bin/planish" new …`, `hatch run test`.
    ran = re.sub(r'"?\$\{?[\w/]+\}?/(?:tool/|wheels/)?(?:bin/)?(\w+)"?', r"\1", runner.read_text())
    for line in block.text.splitlines():
        for command in re.split(r" && ", line.split("  #")[0].strip()):
            words = [w for w in command.split() if w != "pip" and not w.startswith('"hatch') and w != "hatch>=1.18,<2"]
            if not words:
                continue
            needle = {"install hatch": "hatch>=1.18,<2"}.get(" ".join(words[:2]), " ".join(words))
            needle = needle.removeprefix("install ")
            assert needle in ran, f"{page.name}: {command!r} is said to be run by {runner.name}, which does not name it"


def check_verbs_exist(page: Path, block: Block) -> None:
    """Check that the verbs of planish commands which cannot run here exist."""
    for line in block.text.splitlines():
        match = re.search(r"planish (\w+)", line)
        if match:
            done = subprocess.run(
                ["planish", match[1], "--help"], env=environment(), capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, f"{page}: {line}\n{done.stderr}"


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_examples_run(page: Path, folder: Path) -> None:
    script = "\n\n".join(b.text for b in blocks(page, "python") if b.key is None)
    if not script:
        pytest.skip("all examples of this page need a GPU")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{page}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_recipes_are_valid(page: Path) -> None:
    from planish.config import validate
    from planish.recipe import Recipe

    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block.text)
        if isinstance(values, dict) and "model" in values:
            assert validate(Recipe, values).model
