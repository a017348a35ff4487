"""What can be wrong with poses and inertial recordings."""

from __future__ import annotations

from planish.errors import DataError


class PoseError(DataError):
    """Poses are malformed or contradict the pictures, or the camera is not known well enough to have any."""


class ImuError(DataError):
    """An inertial recording is missing, empty or unreadable."""


class ImuTimestampError(ImuError):
    """Time stamps of an inertial recording are absent, run backwards, or are absurd."""
