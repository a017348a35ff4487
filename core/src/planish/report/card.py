"""Card: one figure at the top of a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """One figure at the top of a page, drawn by ``cards.html.j2``.

    Attributes:
        label: What it is.
        value: The figure; must not wrap.
        unit: Of the figure.
        change: How it differs from what it is compared with, such as ``"-3.1 %"``.
        detail: A line below it, after the change.
        verdict: ``good``, ``fair``, ``bad`` or ``diverged``; empty where nothing is judged.
    """

    label: str
    value: str
    unit: str = ""
    change: str = ""
    detail: str = ""
    verdict: str = ""
