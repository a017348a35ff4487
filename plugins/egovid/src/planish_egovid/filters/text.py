"""Text alone, as a data filter."""

from __future__ import annotations

from typing import ClassVar

from planish_egovid.filters.axes_filter import AxisFilter
from planish_egovid.semantics.axis import TextAxis


class Text(AxisFilter):
    """The text axis as a data filter of its own."""

    name: ClassVar[str] = "egovid-text"
    summary: ClassVar[str] = "whether the picture shows what the text says"
    axis = TextAxis
