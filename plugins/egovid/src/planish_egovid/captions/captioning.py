"""Captioning one clip: describe, condense, check, and ask once more if the answer is of no use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.captions.action_class import as_words
from planish_egovid.captions.backend import CaptionBackend
from planish_egovid.captions.validation import MOST_WORDS, fault, tidied
from planish_egovid.semantics.text import stated

ATTEMPTS = 2


@dataclass(frozen=True)
class Caption:
    """What a backend wrote about a clip.

    Attributes:
        description: What is seen, at length; None from a backend that looks at no frames.
        name: The action as a short phrase, or None if there is no usable one. Named as in the released tables.
        reason: Why there is no ``name``.
        attempts: How often the backend was asked for the phrase.
    """

    description: str | None
    name: str | None
    reason: str | None
    attempts: int


def caption(
    backend: CaptionBackend,
    frames: NDArray[np.uint8] | None,
    *,
    text: object = None,
    verb: object = None,
    noun: object = None,
    words: int = MOST_WORDS,
    verbs: frozenset[str] = frozenset(),
) -> Caption:
    """Caption one clip.

    Args:
        backend: Who writes.
        frames: uint8 [frames, height, width, 3], RGB; None for a backend that looks at none.
        text: The clip's narration, which stands in for a description where there is none.
        verb: Class label as tables hold it; NaN, None and empty ones never reach the backend.
        noun: Likewise.
        words: Most words of the phrase.
        verbs: Further base forms that the phrase may begin with.

    Raises:
        WorkError: The backend could not be asked.
    """
    description = None
    if backend.looks_at_frames and frames is not None:
        description = _described(backend, frames)
        if description is None:
            return Caption(None, None, "the description is empty", 0)
    verb_words, noun_words = as_words(verb), as_words(noun)
    source = description or stated(text) or ""
    if not source and verb_words is None:
        return Caption(description, None, "no_text: neither a description, a narration nor a verb", 0)
    known = verbs if verb_words is None else verbs | {verb_words.split()[0]}
    complaint = None
    for attempt in range(1, ATTEMPTS + 1):
        phrase = tidied(backend.condense(source, verb_words, noun_words, complaint=complaint))
        complaint = fault(phrase, words=words, verbs=known)
        if complaint is None:
            return Caption(description, phrase, None, attempt)
    return Caption(description, None, f"no usable phrase: {complaint}", ATTEMPTS)


def _described(backend: CaptionBackend, frames: NDArray[np.uint8]) -> str | None:
    for _ in range(ATTEMPTS):
        description = " ".join(backend.describe(frames).split())
        if description:
            return description
    return None
