"""``planish describe``: one plugin, its documentation and its options."""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any

import typer

from planish.cli.fields import fields
from planish.cli.output import console, plain_table, print_json, print_table
from planish.cli.plugins import known_kind
from planish.cli.session import Json, session
from planish.plugins.registry import INTERFACES, TRANSFORMS, Entry

_SCHEMAS = {
    "Config": ("config", "Options"),
    "Data": ("data", "The recipe's data section"),
    "Policy": ("policy", "Thresholds"),
    "Columns": ("columns", "Columns of a row"),
}
"""Class attribute -> key in the JSON, and heading: what each kind of plugin describes beside its options."""


def describe(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a plugin, as 'planish plugins' lists it.")],
    kind: Annotated[str | None, typer.Option(help="Its kind, where two plugins share the name.")] = None,
    as_json: Json = False,
) -> None:
    """Describe a plugin: what it does, and its options with types, defaults and bounds.

    Example: planish describe pretrain24
    """
    registry = session(context).registry
    chosen = known_kind(kind)
    kinds: tuple[str, ...] = (chosen,) if chosen else ()
    if not chosen and any((each, name) in registry.entries for each in INTERFACES):
        kinds = tuple(INTERFACES)  # a method goes before the benchmark that is named after it
    entry = registry.find(name, *kinds)
    target = registry.load(name, entry.kind)
    documentation = inspect.cleandoc(target.__doc__ or "")
    schemas = {
        attribute: getattr(target, attribute).model_json_schema()
        for attribute in _SCHEMAS
        if entry.kind in INTERFACES and hasattr(target, attribute)
    }
    presets = {key: dict(values) for key, values in getattr(target, "presets", {}).items()}
    if as_json:
        print_json(
            {
                "kind": entry.kind,
                "name": entry.name,
                "summary": entry.summary,
                "plugin": entry.distribution,
                "version": entry.version,
                "target": entry.target,
                "documentation": documentation,
                **{_SCHEMAS[attribute][0]: schema for attribute, schema in schemas.items()},
                **({"presets": presets} if entry.kind == "data_filter" else {}),
            }
        )
        return
    out = console()
    from rich.markup import escape

    about = escape(f"{entry.kind.replace('_', ' ')} of {entry.distribution} {entry.version}")
    out.print(f"[bold]{escape(entry.name)}[/]  [dim]{about}[/]")
    out.print(escape(entry.summary))
    if documentation:
        out.print("\n" + escape(_plain(documentation)))
    for attribute, schema in schemas.items():
        out.print(f"\n[bold]{_SCHEMAS[attribute][1]}[/]")
        _print_fields(schema)
    if presets:
        import yaml

        out.print("\n[bold]Presets of thresholds[/]")
        for key, values in presets.items():
            shown = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=10_000).strip()
            out.print(escape(f"  {key}: {shown}"))
    out.print(f"\n[bold]Use[/]\n{escape(_use(entry, schemas.get('Config', {})))}")


def _plain(documentation: str) -> str:
    """Return a docstring without its markup: roles and literals are shown as they are named."""
    return re.sub(r"``([^`]+)``", r"\1", re.sub(r":[a-z:]+:`~?([^`]+)`", r"\1", documentation))


def _print_fields(schema: dict[str, Any]) -> None:
    from rich.text import Text

    rows = fields(schema)
    if not rows:
        print("  (none)")
        return
    table = plain_table("NAME", "TYPE", "DEFAULT", "BOUNDS", "DESCRIPTION")
    for row in rows:
        table.add_row(*(Text(cell) for cell in (row.name, row.type, row.default, row.bounds, row.description)))
    print_table(table)


def _use(entry: Entry, schema: dict[str, Any]) -> str:
    option = next((f"{f.name}={f.default}" for f in fields(schema) if "." not in f.name and f.default[0] != "("), "")
    if entry.kind in TRANSFORMS:
        more = f", {option}" if option else ""
        return f'  Python:  planish.apply(model, "{entry.name}"{more})\n  recipe:  transforms: [{{use: {entry.name}}}]'
    if entry.kind == "runner":
        return f"  recipe:  runner: {entry.name}"
    if entry.kind == "data_filter":
        return f"  shell:   planish filter PATH... --with {entry.name} --out DIR"
    if entry.kind == "filter_engine":
        return f"  shell:   planish filter PATH... --with FILTER --out DIR --engine {entry.name}"
    if entry.kind == "language_model":
        return f"  recipe:  model: {{name: {entry.name}, config: {{…}}}}"
    if entry.kind == "command":
        return f"  shell:   planish {entry.name} --help"
    if entry.kind == "benchmark":
        return f"  shell:   planish bench {entry.name}"
    if entry.kind == "diagnostic":
        return "  shell:   planish doctor"
    return f'  Python:  PluginManager().discover().registry.load("{entry.name}", "{entry.kind}")'
