"""Pages that need nothing but themselves: templates within one frame, which holds the style."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

_FRAME = "planish.report"


def render_page(package: str, template: str, **values: Any) -> str:
    """Return a page made of a template, which extends ``frame.html.j2``; values are escaped.

    Args:
        package: Package that holds the template.
        template: Its file name.
        values: What the template uses.

    Raises:
        ImportError: jinja2 is missing; it comes with ``planish[report]``.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def load(name: str) -> str:
        return (files(package if name == template else _FRAME) / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)
