"""``planish schema``: the JSON schema of recipes, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from planish.cli.output import print_json
from planish.cli.session import Json, session


def schema(
    context: typer.Context,
    installed: Annotated[
        bool, typer.Option("--installed", help="With the options of the installed plugins (imports them).")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead.")] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON schema of recipes, so that an editor completes and checks them.

    Example: planish schema --installed --out recipe.schema.json

    Then begin a recipe with the line: # yaml-language-server: $schema=recipe.schema.json
    """
    from planish.atomic import write_text
    from planish.recipe.source import installed_schema, json_schema

    found = installed_schema(session(context).registry) if installed else json_schema()
    if out is None:
        print_json(found)
        return
    write_text(out, json.dumps(found, indent=2) + "\n")
    if as_json:
        print_json({"written": str(out)})
    else:
        print(f"wrote {out}")
