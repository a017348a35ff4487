"""``planish plugins``: what is installed, absent, blocked and broken."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from planish.cli.output import plain_table, print_json, print_table
from planish.cli.session import Json, session
from planish.errors import ConfigError, did_you_mean
from planish.plugins.registry import FIRST_PARTY, KINDS, Registry


@dataclass(frozen=True)
class Listed:
    """One line of the list."""

    kind: str
    name: str
    plugin: str
    version: str
    status: str
    """``ok``, ``absent``, ``broken`` or ``blocked``."""
    summary: str
    """What it is; where it is not ok, why not and what helps."""


def plugins(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as sparsifier.")] = None,
    tracebacks: Annotated[bool, typer.Option("--traceback", help="Show where a broken plugin fails.")] = False,
    as_json: Json = False,
) -> None:
    """List plugins: installed, absent, blocked and broken ones.

    Example: planish plugins --kind sparsifier
    """
    registry = session(context).registry
    rows = listed(registry, known_kind(kind))
    if as_json:
        values = [asdict(row) for row in rows]
        if tracebacks:
            for value in values:
                value["traceback"] = _traceback(registry, value["name"])
        print_json(values)
        return
    colours = {"ok": "green", "absent": "dim", "broken": "red", "blocked": "yellow"}
    from rich.text import Text

    table = plain_table("KIND", "NAME", "PLUGIN", "VERSION", "STATUS", "SUMMARY")
    for row in rows:
        cells = [Text(cell) for cell in asdict(row).values()]
        cells[4].stylize(colours[row.status])
        table.add_row(*cells)
    print_table(table)
    for name in registry.broken if tracebacks else ():
        print(f"\n{name}:\n{_traceback(registry, name)}")


def listed(registry: Registry, kind: str | None = None) -> list[Listed]:
    """Return the lines of the list, by kind and name; what is broken or blocked comes last.

    A plugin that could not be loaded has no known kind, unless this project publishes it, and is listed under every
    ``kind`` that is asked for.
    """
    from planish.cli.app import app

    verbs = {c.callback.__name__ for c in app.registered_commands if c.callback is not None}
    rows = []
    for e in registry.of(*([kind] if kind else ())):
        shadowed = e.kind == "command" and e.name in verbs
        summary = f"planish has a verb {e.name!r} of its own, which runs instead" if shadowed else e.summary
        rows.append(Listed(e.kind, e.name, e.distribution, e.version, "broken" if shadowed else "ok", summary))
    out_of_use = {*registry.blocked, *registry.broken}
    for of_kind, name, distribution in registry.absent():
        if name not in out_of_use and kind in (None, of_kind):
            rows.append(Listed(of_kind, name, distribution, "-", "absent", f"pip install {distribution}"))
    rows.sort(key=lambda row: (KINDS.index(row.kind), row.name))
    published = {name: (of_kind, distribution) for (of_kind, name), distribution in FIRST_PARTY.items()}
    for name in sorted(out_of_use):
        of_kind, distribution = published.get(name, ("-", "-"))
        if kind not in (None, of_kind) and of_kind != "-":
            continue
        if name in registry.broken:
            error = registry.broken[name]
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            rows.append(Listed(of_kind, name, distribution, "-", "broken", why))
        else:
            rows.append(Listed(of_kind, name, distribution, "-", "blocked", f"by {registry.blocked[name]}"))
    return rows


def known_kind(given: str | None) -> str | None:
    """Return the kind that a user typed, with dashes or underscores; None stays None.

    Raises:
        ConfigError: There is no such kind.
    """
    if given is None:
        return None
    kind = given.replace("-", "_")
    if kind not in KINDS:
        raise ConfigError(f"--kind: no kind named {given!r}{did_you_mean(kind, KINDS)} (kinds: {', '.join(KINDS)})")
    return kind


def _traceback(registry: Registry, name: str) -> str | None:
    error = registry.broken.get(name)
    return None if error is None else "".join(traceback.format_exception(error))
