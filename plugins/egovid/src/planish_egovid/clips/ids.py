"""Clip ids of the released data set: ``<source>_<StartFrame>_<EndFrame>``, with or without ``.mp4``."""

from __future__ import annotations

from dataclasses import dataclass

from planish.errors import DataError

SUFFIX = ".mp4"


class ClipIdError(DataError):
    """A clip id cannot be read, or its frames are no span."""


@dataclass(frozen=True)
class ClipId:
    """A clip by its source and frames, as in the released data set (Ego4D sources have a UUID).

    Attributes:
        source: Name of the source video, without suffix; may contain underscores.
        start: First frame.
        end: Frame after the last one.
        has_suffix: Whether it is written with ``.mp4``.
    """

    source: str
    start: int
    end: int
    has_suffix: bool = False

    def __post_init__(self) -> None:
        """Check that the frames are a span.

        Raises:
            ClipIdError: There is no source, the start is negative, or the end is not after it.
        """
        if not self.source:
            raise ClipIdError(f"clip id {str(self)!r} names no source; expected SOURCE_START_END")
        if self.start < 0 or self.end <= self.start:
            raise ClipIdError(
                f"clip id {str(self)!r}: frames {self.start} to {self.end} are no span; start must be below"
            )

    def __str__(self) -> str:
        """Return the id as it was written."""
        return f"{self.source}_{self.start}_{self.end}{SUFFIX if self.has_suffix else ''}"

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.end - self.start


def parse_clip_id(text: object, row: int | None = None) -> ClipId:
    """Return what a clip id says.

    Args:
        text: Such as ``"1a2b3c_0_162"`` or ``"1a2b3c_0_162.mp4"``.
        row: Number of the row that it stands in, from 1, for the message.

    Raises:
        ClipIdError: It is none, or its end is not after its start.
    """
    where = "" if row is None else f"row {row}: "
    if not isinstance(text, str) or not text.strip():
        raise ClipIdError(f"{where}clip id is {text!r}; expected text such as SOURCE_0_162")
    name = text.strip()
    stem = name.removesuffix(SUFFIX)
    parts = stem.rsplit("_", 2)
    # isdecimal takes digits of all scripts, isascii leaves those that int() writes back the same.
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts[1:]):
        raise ClipIdError(f"{where}clip id {text!r} does not end in two frame numbers; expected SOURCE_START_END")
    try:
        return ClipId(parts[0], int(parts[1]), int(parts[2]), has_suffix=stem != name)
    except ClipIdError as error:
        raise ClipIdError(f"{where}{error}") from None
