"""TemplateCaptions: action text from labels alone, with nothing to download and nothing left to chance."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_TAGS = re.compile(r"^#\w+\s+")
_WEARER = re.compile(r"^(?:C|the camera wearer|the person|I)\s+", re.IGNORECASE)


class TemplateCaptions:
    """Writes "VERB the NOUN"; without a verb, the narration without its tags ("#C C opens a door": "opens a door").

    A :class:`~planish_egovid.captions.backend.CaptionBackend`.
    """

    name = "template/1"
    looks_at_frames = False
    parallel = 1

    def describe(self, frames: NDArray[np.uint8]) -> str:
        """Return an empty text: a template sees nothing."""
        return ""

    def condense(self, text: str, verb: str | None, noun: str | None, *, complaint: str | None = None) -> str:
        """Return the phrase; the same question gets the same answer."""
        if verb is not None:
            return verb if noun is None else f"{verb} the {noun}"
        return _WEARER.sub("", _TAGS.sub("", text.strip()))
