"""``planish new``: a plugin project of one's own that installs and keeps its contract as generated."""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Iterator
from importlib.machinery import NamespaceLoader
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated

import typer

import planish
from planish.atomic import replacing_folder
from planish.cli.output import print_json
from planish.cli.session import Json, session
from planish.errors import ConfigError, did_you_mean
from planish.plugins.registry import FIRST_PARTY, Registry

KINDS = {
    "quantizer": ("planish_register_quantizers", "Symmetric rounding of weights, one scale per row"),
    "sparsifier": ("planish_register_sparsifiers", "N:M magnitude pruning of linear layers"),
    "attention": ("planish_register_attention", "Attention with all scores in memory, in float32"),
    "language-model": ("planish_register_language_models", "A small GPT with learned positions"),
    "video-model": ("planish_register_video_models", "Per-pixel flow matching under a prompt and a camera path"),
    "data-filter": ("planish_register_data_filters", "Luminance and size of PPM pictures"),
    "filter-engine": ("planish_register_filter_engines", "One worker that scores clip after clip"),
}
"""Kind, as it is typed -> its hook, and what the generated implementation does."""

_SUFFIX = ".tmpl"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def new(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[
        str, typer.Argument(help="Name of the plugin, its distribution and its folder, such as my-method.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the project; left out: NAME in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Make a plugin project that installs, is listed, and passes its contract suite as generated.

    Example: planish new sparsifier my-method
    """
    check_kind(kind)
    check_name(name, session(context).registry)
    folder = Path(name) if out is None else out
    check_folder(folder)
    project = render(kind, name)
    write(project, folder)
    commands = [f"pip install -e {folder}", "planish plugins", f"pip install -e '{folder}[test]' && pytest {folder}"]
    if as_json:
        print_json({"kind": kind, "name": name, "folder": str(folder), "files": sorted(project), "next": commands})
        return
    print(f"{folder}: {_words(kind)} {name!r}, with its contract suite")
    for path in sorted(project):
        print(f"  {path}")
    print("next:")
    for command in commands:
        print(f"  {command}")


def check_kind(kind: str) -> None:
    """Check the kind of a project.

    Raises:
        ConfigError: There is none of this name.
    """
    if kind not in KINDS:
        raise ConfigError(f"KIND: no kind named {kind!r}{did_you_mean(kind, KINDS)} (one of {', '.join(KINDS)})")


def check_name(name: str, registry: Registry) -> None:
    """Check the name of a project.

    Raises:
        ConfigError: Not a name, a word of Python, the name of a plugin, or that of an importable module, which the
            new package would hide.
    """
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"NAME: {name!r} is no name for a package; use lower-case letters, digits and single '-' or '_' between "
            "them, beginning with a letter, such as my-method"
        )
    if keyword.iskeyword(package):
        raise ConfigError(f"NAME: {name!r} is a word of Python and cannot be imported; choose another")
    taken = [entry for entry in registry.of() if name in (entry.name, entry.plugin)]
    if taken:
        entry = taken[0]
        raise ConfigError(f"NAME: {name!r} is a {entry.kind} of the installed {entry.distribution}; choose another")
    if name in registry.broken or name in registry.blocked:
        raise ConfigError(f"NAME: {name!r} is an installed plugin, though broken or blocked; choose another")
    published = {known: distribution for (_, known), distribution in FIRST_PARTY.items()}
    if name in published:
        raise ConfigError(f"NAME: {name!r} is the plugin of {published[name]}; choose another")
    found = find_spec(package)
    if found is not None and not isinstance(found.loader, NamespaceLoader):
        raise ConfigError(f"NAME: a package {package!r} would hide the module {found.origin}; choose another")


def check_folder(folder: Path) -> None:
    """Check where a project is to be written.

    Raises:
        ConfigError: It is the current folder, a file, or a folder with something in it.
    """
    if folder.resolve() == Path.cwd():
        raise ConfigError(f"--out: {folder} is the current folder; name one below it")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out: {folder} is a file; name a folder that does not exist yet")
    if folder.is_dir() and any(os.scandir(folder)):
        raise ConfigError(f"--out: {folder} is not empty, and nothing is overwritten; name another folder with --out")


def render(kind: str, name: str) -> dict[str, str]:
    """Return path -> text of each file of a project."""
    hook, summary = KINDS[kind]
    package = name.replace("-", "_")
    major, minor, *_ = planish.__version__.split(".")
    versions = f">={major}.{minor},<{major}.{int(minor) + 1}"
    words = {
        "name": name,
        "package": package,
        "module": kind.replace("-", "_"),
        "class_name": _class_name(kind, name),
        "hook": hook,
        "kind_words": _words(kind),
        "summary": summary,
        "requirement": f"planish{versions}",
        "requirement_testing": f"planish[testing]{versions}",
    }
    templates = files("planish") / "templates"
    project: dict[str, str] = {}
    for part in ("project", kind):
        for path, text in _templates(templates / part):
            project[path.replace("__package__", package).removesuffix(_SUFFIX)] = Template(text).substitute(words)
    return project


def write(project: dict[str, str], folder: Path) -> None:
    """Write a project to a folder, all of it or nothing.

    Raises:
        WorkError: The folder cannot be written, or the disk is full.
    """
    with replacing_folder(folder.resolve()) as beside:
        for path, text in project.items():
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_text(text, encoding="utf-8")


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _templates(item, f"{prefix}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            yield prefix + item.name, item.read_text(encoding="utf-8")


def _class_name(kind: str, name: str) -> str:
    """Return ``MyMethodSparsifier`` for my-method: the suffix keeps the name apart from those that are imported."""
    words = f"{name}-{kind}" if not name.endswith(f"-{kind}") else name
    return "".join(part.capitalize() for part in words.replace("_", "-").split("-"))


def _words(kind: str) -> str:
    return "attention implementation" if kind == "attention" else kind.replace("-", " ")
