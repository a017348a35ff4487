"""Verb and noun classes of Ego4D and their like, as words."""

from __future__ import annotations

from planish_egovid.semantics.text import stated


def as_words(label: object) -> str | None:
    """Return a class label as plain words, or None where there is none.

    ``"cut_(trim,_slice,_chop)"`` is "cut", ``"turn-on_(switch-on)"`` is "turn on", NaN is None.
    """
    text = stated(label)
    if text is None:
        return None
    words = text.split("(", 1)[0].replace("_", " ").replace("-", " ").split()
    return " ".join(words).lower() or None
