"""CaptionBackend: what looks at frames and writes about them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class CaptionBackend(Protocol):
    """Describes frames at length, and condenses a text to a short action phrase.

    Attributes:
        name: Model and how it runs; stored with the captions, and what a resumed run compares.
        looks_at_frames: Whether :meth:`describe` is of use; if not, no clip is decoded.
        parallel: Calls that may be under way at the same time, each from its own thread.
    """

    name: str
    looks_at_frames: bool
    parallel: int

    def describe(self, frames: NDArray[np.uint8]) -> str:
        """Return a detailed description of subjects, actions and surroundings.

        Args:
            frames: uint8 [frames, height, width, 3], RGB, in order of time.

        Raises:
            WorkError: The model could not be asked this time.
        """
        ...

    def condense(self, text: str, verb: str | None, noun: str | None, *, complaint: str | None = None) -> str:
        """Return a short phrase that begins with a verb and says what the camera wearer does.

        Args:
            text: A description, or a narration.
            verb: Class of the action, as a hint; None if it is not known.
            noun: Class of its object, likewise.
            complaint: What was wrong with the last answer to the same question, if it was asked before.

        Raises:
            WorkError: The model could not be asked this time.
        """
        ...
