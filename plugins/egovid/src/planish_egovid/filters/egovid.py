"""EgoVid: the whole pipeline."""

from __future__ import annotations

from typing import ClassVar

from planish_egovid.clarity.axis import ClarityAxis
from planish_egovid.consistency.axis import ConsistencyAxis
from planish_egovid.filters.axes_filter import AxesFilter
from planish_egovid.kinematics.axis import KinematicsAxis
from planish_egovid.motion.axis import MotionAxis
from planish_egovid.semantics.axis import TextAxis


class EgoVid(AxesFilter):
    """Cleaning of egocentric video along the axes of EgoVid-5M (arXiv 2411.08380), and its camera motion."""

    name: ClassVar[str] = "egovid"
    summary: ClassVar[str] = "all axes of egocentric cleaning, each clip decoded once"
    axis_types = (MotionAxis, ConsistencyAxis, ClarityAxis, TextAxis, KinematicsAxis)
