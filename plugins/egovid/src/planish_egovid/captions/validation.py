"""Whether an answer is a short English phrase that begins with a verb."""

from __future__ import annotations

import re
import unicodedata
from importlib.resources import files

MOST_WORDS = 40
LATIN_SHARE = 0.9
"""Least share of Latin letters among an answer's letters. Tells English from Chinese or Russian answers, which
multilingual models give now and then; it does not tell English from French."""

VERBS = frozenset((files("planish_egovid.captions") / "verbs.txt").read_text(encoding="utf-8").split())
"""Base forms of verbs of everyday actions. More can be given: see ``verbs`` of the caption options."""

_IRREGULAR = {"lie": "lying", "tie": "tying", "untie": "untying", "die": "dying"}
_DOUBLED = re.compile(r"(?:^|[^aeiou])[aeiou][bdgklmnprt]$")
_NOUNS_IN_ING = frozenset({"ceiling", "building", "clothing", "evening", "morning", "nothing", "something", "anything"})


def verb_forms(verb: str) -> frozenset[str]:
    """Return a verb's base form, third person, and present participle: open, opens, opening."""
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        third = f"{verb}es"
    elif verb.endswith("y") and verb[-2:-1] not in "aeiou":
        third = f"{verb[:-1]}ies"
    else:
        third = f"{verb}s"
    if verb in _IRREGULAR:
        return frozenset({verb, third, _IRREGULAR[verb]})
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return frozenset({verb, third, f"{verb[:-1]}ing"})
    participles = {f"{verb}ing"}
    if _DOUBLED.search(verb):
        participles.add(f"{verb}{verb[-1]}ing")
    return frozenset({verb, third, *participles})


_KNOWN = frozenset(form for verb in VERBS for form in verb_forms(verb))


def tidied(answer: str) -> str:
    """Return an answer without what models put around it: white space, quotation marks, emphasis, a final stop."""
    text = " ".join(answer.split())
    while True:
        stripped = text.strip(" \"'`*“”‘’").removesuffix(".")
        if stripped == text:
            return text
        text = stripped


def fault(phrase: str, *, words: int = MOST_WORDS, verbs: frozenset[str] = frozenset()) -> str | None:
    """Return what is wrong with an action phrase, as a complaint to the model, or None.

    Args:
        phrase: A tidied answer.
        words: Most words.
        verbs: Base forms beyond :data:`VERBS` that it may begin with, such as the class that was given as a hint.
    """
    if not phrase:
        return "it is empty"
    count = len(phrase.split())
    if count > words:
        return f"it has {count} words, more than {words}"
    if _latin_share(phrase) < LATIN_SHARE:
        return "it is not in English"
    first = re.split(r"[^a-z]", phrase.lower(), maxsplit=1)[0]
    if not _is_verb(first, verbs):
        return f"it begins with {phrase.split()[0]!r}, which is no verb"
    return None


def _is_verb(word: str, verbs: frozenset[str]) -> bool:
    if word in _KNOWN or any(word in verb_forms(verb) for verb in verbs):
        return True
    # A participle of a verb that is on no list.
    return len(word) > 5 and word.endswith("ing") and word not in _NOUNS_IN_ING


def _latin_share(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return 0.0
    return sum("LATIN" in unicodedata.name(letter, "") for letter in letters) / len(letters)
