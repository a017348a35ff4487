"""What language models are asked; raise ``VERSION`` with every change, so that captions say what they answer."""

from __future__ import annotations

VERSION = 1

DESCRIBE = (
    "These pictures are frames of one video, in order, filmed by a camera on a person's head. Describe in detail what "
    "can be seen: the place and the things in it, the people, what the hands of the person who wears the camera do, "
    "which objects they touch and how those change, and how the view moves. Say only what is visible. Write plain "
    "English sentences."
)

CONDENSE = (
    "Below is a description of a short video from a person's head-worn camera. Say in one short phrase which action "
    "this person performs. Begin with the verb, then name the object, as in 'open the drawer' or 'pour water into the "
    "pan'. At most {words} words, in English. Leave out mood, lighting, style and anything that is not the action. "
    "Answer with the phrase alone.\n"
)


def condensing(text: str, verb: str | None, noun: str | None, words: int, complaint: str | None = None) -> str:
    """Return the prompt that asks for the action phrase of a text.

    Args:
        text: A description.
        verb: A hint, or None; what is None is not mentioned.
        noun: Likewise.
        words: Longest answer.
        complaint: What was wrong with the last answer, or None.
    """
    parts = [CONDENSE.format(words=words)]
    if verb is not None:
        parts.append(f"The action was labelled with the verb: {verb}.")
    if noun is not None:
        parts.append(f"Its object was labelled: {noun}.")
    if complaint is not None:
        parts.append(f"Your last answer could not be used: {complaint}.")
    return "\n".join([*parts, f"Description: {text}"])
