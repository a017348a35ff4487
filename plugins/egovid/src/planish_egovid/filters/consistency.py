"""Consistency alone, as a data filter."""

from __future__ import annotations

from typing import ClassVar

from planish_egovid.consistency.axis import ConsistencyAxis
from planish_egovid.filters.axes_filter import AxisFilter


class Consistency(AxisFilter):
    """The consistency axis as a data filter of its own."""

    name: ClassVar[str] = "egovid-consistency"
    summary: ClassVar[str] = "whether the frames belong together"
    axis = ConsistencyAxis
