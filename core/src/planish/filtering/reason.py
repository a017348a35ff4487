"""Reasons and errors as classes: what is left of a sentence when numbers, names and paths are taken out."""

from __future__ import annotations

import re

_VARIES = re.compile(
    r"""
      '[^']*' | "[^"]*"                           # quoted names
    | (?<![\w.])[^\s:;,()]*[/\\][^\s:;,()]+       # paths
    | (?<![A-Za-z_])[-+]?\d[\d.,]*(?:e[-+]?\d+)?  # numbers, but not the digits within a name such as flow_0_4
    """,
    re.VERBOSE,
)
_MOST = 200


def reason_class(reason: str) -> str:
    """Return what many reasons have in common: ``"luminance 0.08 is below 0.2"`` -> ``"luminance … is below …"``.

    Args:
        reason: A decision's reason or a row's error.
    """
    words = " ".join(_VARIES.sub("…", reason).split()) or "no reason given"
    return words if len(words) <= _MOST else f"{words[: _MOST - 1]}…"
