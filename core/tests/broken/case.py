"""A broken implementation: which clause it violates, and what the suite has to say about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from planish.testing import PluginContract


@dataclass(frozen=True)
class Broken:
    """One broken implementation.

    Attributes:
        suite: The suite that the sound implementation passes.
        clause: The one clause that is violated.
        says: Words that the failure must contain.
        plugin: The broken class; None where the suite itself is already set up with it.
        changes: Attributes of the suite that are set as well.
        gpu: Whether the clause needs a GPU.
    """

    suite: type[PluginContract]
    clause: str
    says: str
    plugin: type | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    gpu: bool = False

    def make_suite(self) -> type[PluginContract]:
        """Return the suite with the broken implementation in it."""
        if self.plugin is None:
            return self.suite
        return type(f"Broken{self.suite.__name__}", (self.suite,), {"plugin": self.plugin, **self.changes})


def clauses(suite: type[PluginContract]) -> list[str]:
    """Return the names of a suite's clauses."""
    return [name for name in dir(suite) if name.startswith("test_")]


def violations(suite: type[PluginContract], folder: Path) -> dict[str, str]:
    """Run all clauses of a suite and return clause -> what the failing ones say."""
    found: dict[str, str] = {}
    for name in clauses(suite):
        clause = getattr(suite(), name)
        needs_folder = "tmp_path" in clause.__func__.__code__.co_varnames[: clause.__func__.__code__.co_argcount]
        arguments = []
        if needs_folder:
            arguments.append(folder / name)
            arguments[0].mkdir()
        try:
            clause(*arguments)
        except pytest.skip.Exception:
            continue
        except pytest.fail.Exception as failure:
            found[name] = str(failure)
        except Exception as error:
            found[name] = f"crashed with {type(error).__name__}: {error}"
    return found
