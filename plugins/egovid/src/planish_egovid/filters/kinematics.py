"""Kinematics alone, as a data filter."""

from __future__ import annotations

from typing import ClassVar

from planish_egovid.filters.axes_filter import AxisFilter
from planish_egovid.kinematics.axis import KinematicsAxis


class Kinematics(AxisFilter):
    """The kinematics axis as a data filter of its own."""

    name: ClassVar[str] = "egovid-kinematics"
    summary: ClassVar[str] = "how the camera moves: rotation, path, IMU"
    axis = KinematicsAxis
