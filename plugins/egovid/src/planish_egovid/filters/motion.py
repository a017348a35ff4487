"""Motion alone, as a data filter."""

from __future__ import annotations

from typing import ClassVar

from planish_egovid.filters.axes_filter import AxisFilter
from planish_egovid.motion.axis import MotionAxis


class Motion(AxisFilter):
    """The motion axis as a data filter of its own."""

    name: ClassVar[str] = "egovid-motion"
    summary: ClassVar[str] = "how strongly and how evenly the picture moves"
    axis = MotionAxis
