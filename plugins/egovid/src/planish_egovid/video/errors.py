"""Why a clip cannot be read."""

from __future__ import annotations

from planish.errors import DataError


class ClipDecodeError(DataError):
    """A file is missing, unreadable, damaged or truncated, or says impossible things of itself."""


class NoVideoStreamError(DataError):
    """A file holds no moving pictures: only sound, a still image, or not the stream that was asked for."""


class ClipRangeError(DataError):
    """A clip's start and end are no span of its file."""
