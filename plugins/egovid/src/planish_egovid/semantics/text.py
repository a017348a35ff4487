"""Telling a text from the many ways in which tables spell its absence."""

from __future__ import annotations

_ABSENT = frozenset({"", "nan", "none", "null", "n/a", "<na>", "#n/a"})


def stated(value: object) -> str | None:
    """Return a text without surrounding space, or None where there is none.

    NaN, None and their spellings as words ("nan", "None", "null", "N/A") are no text: tables read by pandas carry
    them where a cell was empty.
    """
    if not isinstance(value, str):
        return None
    text = value.strip()
    return None if text.lower() in _ABSENT else text
