"""``planish doctor``: what this machine can do, and what is missing for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import typer

from planish.cli.output import console, print_json
from planish.cli.session import Json, session
from planish.errors import PluginError
from planish.plugins.registry import INTERFACES, Registry


@dataclass(frozen=True)
class Check:
    """One finding."""

    group: str
    """Where it comes from: a plugin's distribution, ``plugins``, or ``not installed``."""
    name: str
    ok: bool | None
    """Whether it is there; None for what could be installed and nothing here waits for."""
    detail: str
    fix: str = ""


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Say what this machine can do, and what is missing for the rest.

    Everything that is found is listed; what is missing comes with the step that mends it. The exit code is 0: a
    machine without a GPU is no error.

    Example: planish doctor
    """
    registry = session(context).registry
    checks = [*diagnoses(registry), *plugin_checks(registry)]
    if as_json:
        fine = all(check.ok is not False for check in checks)
        print_json({"ok": fine, "checks": [asdict(check) for check in checks]})
        return
    out = console()
    from rich.markup import escape

    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            out.print(f"[bold]{escape(group)}[/]")
        mark = {True: "[green]✓[/]", False: "[yellow]✗[/]", None: "[dim]·[/]"}[check.ok]
        out.print(f"  {mark} {escape(check.name)}: {escape(check.detail)}")
        if check.fix and check.ok is False:
            out.print(f"      [dim]→ {escape(check.fix)}[/]")
    missing = [check.name for check in checks if check.ok is False]
    verdict = f"missing here: {', '.join(missing)}" if missing else "everything that is installed works"
    out.print(f"\n{escape(verdict)}")


def diagnoses(registry: Registry) -> list[Check]:
    """Return what the registered diagnostics find; one that fails is itself a finding."""
    found: list[Check] = []
    for entry in registry.of("diagnostic"):
        try:
            answer: Any = registry.load(entry.name, "diagnostic")()
            rows: Iterable[Mapping[str, Any]] = [answer] if isinstance(answer, Mapping) else list(answer)
            found += [
                Check(entry.distribution, str(r["name"]), bool(r["ok"]), str(r["detail"]), str(r.get("fix") or ""))
                for r in rows
            ]
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            found.append(Check(entry.distribution, entry.name, False, why, f"update {entry.distribution}"))
    return found


def plugin_checks(registry: Registry) -> list[Check]:
    """Return whether each plugin class loads and fills its interface, and which plugins are missing."""
    found: list[Check] = []
    for entry in registry.of():
        name = f"{entry.kind.replace('_', ' ')} {entry.name}"
        try:
            registry.load(entry.name, entry.kind)
        except PluginError as error:
            found.append(Check("plugins", name, False, " ".join(str(error).split())))
        else:
            if entry.kind in INTERFACES:
                found.append(Check("plugins", name, True, f"{entry.distribution} {entry.version}"))
    for name, broken in registry.broken.items():
        why = f"{type(broken).__name__}: {' '.join(str(broken).split())}"
        found.append(Check("plugins", name, False, why, "planish plugins --traceback shows where"))
    for name, by in registry.blocked.items():
        found.append(Check("plugins", name, False, f"blocked by {by}", "unblock it to use it"))
    gone = {*registry.broken, *registry.blocked}
    for kind, name, distribution in registry.absent():
        if name not in gone:
            fix = f"pip install {distribution}"
            found.append(Check("not installed", f"{kind.replace('_', ' ')} {name}", None, fix, fix))
    return found
