"""Clarity alone, as a data filter."""

from __future__ import annotations

from typing import ClassVar

from planish_egovid.clarity.axis import ClarityAxis
from planish_egovid.filters.axes_filter import AxisFilter


class Clarity(AxisFilter):
    """The clarity axis as a data filter of its own."""

    name: ClassVar[str] = "egovid-clarity"
    summary: ClassVar[str] = "how sharp and how well exposed the picture is"
    axis = ClarityAxis
