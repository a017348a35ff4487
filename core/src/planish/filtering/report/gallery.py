"""The gallery: a few clips of those that were kept, and of those that each rule drops, with pictures of them."""

from __future__ import annotations

import base64
import heapq
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from planish.filtering.funnel import Funnel
from planish.filtering.report.bounds import Bounds, figure
from planish.interfaces.data_filter import Clip, DataFilter, Illustration, Row

_log = logging.getLogger(__name__)
SHOWN = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/svg+xml")
"""Media types that a page shows."""
PICTURE_BYTES = 3_300_000
"""Bytes of all pictures of a page together; as text they take a third more."""
_MOST_GROUPS = 12
_MOST_FIGURES = 6


@dataclass(frozen=True)
class Figure:
    """A score on a card."""

    name: str
    value: str
    asked: str
    rejected: bool


@dataclass(frozen=True)
class Picture:
    """An illustration, ready for the page."""

    title: str
    caption: str
    source: str


@dataclass
class Card:
    """A clip in the gallery."""

    clip: Clip
    name: str
    span: str
    reason: str
    rules: tuple[str, ...]
    figures: list[Figure]
    pictures: list[Picture] = field(default_factory=list)
    remark: str = ""


@dataclass
class Group:
    """Clips with the same fate."""

    title: str
    kept: bool
    clips: int
    cards: list[Card] = field(default_factory=list)


@dataclass(frozen=True)
class Decided:
    """A clip's decision as it is read back."""

    clip_id: str
    keep: bool
    reason: str
    rules: tuple[str, ...]


def choose(decided: Iterable[tuple[str | None, Decided]], most: int) -> dict[str | None, list[Decided]]:
    """Return rule -> a few of the clips that it drops; None -> of those that are kept.

    Which ones does not depend on the order of the clips, or on how many there are beside them.

    Args:
        decided: The rule that a clip is counted under, and its decision.
        most: Clips for each rule.
    """
    found: dict[str | None, list[tuple[int, str, Decided]]] = {}
    for rule, decision in decided:
        # The largest stands first in the heap: it goes when a smaller one comes.
        rank = -int.from_bytes(blake2b(decision.clip_id.encode(), digest_size=8).digest(), "big")
        heap = found.setdefault(rule, [])
        if len(heap) < most:
            heapq.heappush(heap, (rank, decision.clip_id, decision))
        elif rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, decision.clip_id, decision))
    return {rule: [decision for _, _, decision in sorted(heap, reverse=True)] for rule, heap in found.items()}


def groups(
    funnel: Funnel,
    chosen: Mapping[str | None, list[Decided]],
    clips: Mapping[str, Clip],
    rows: Mapping[str, Row],
) -> list[Group]:
    """Return the gallery without pictures: kept clips first, then the rules in their order."""
    made = [Group("Kept", True, funnel.kept)]
    made += [Group(count.rule, False, count.first) for count in funnel.rules if count.first]
    made = made[: _MOST_GROUPS + 1]
    for group in made:
        for decision in chosen.get(None if group.kept else group.title, []):
            clip = clips[decision.clip_id]
            group.cards.append(_card(clip, rows[decision.clip_id], decision, funnel.settled))
    return [group for group in made if group.cards]


def illustrate(
    gallery: list[Group], data_filter: DataFilter, rows: Mapping[str, Row], progress: Callable[[int, int], None]
) -> None:
    """Put pictures into the cards, one card of each group after the other, as long as the page stays small.

    Args:
        gallery: The cards.
        data_filter: Makes the pictures.
        rows: Clip -> its scores.
        progress: Called with how many cards are done, and how many there are.
    """
    left = PICTURE_BYTES
    longest = max((len(group.cards) for group in gallery), default=0)
    order = [group.cards[place] for place in range(longest) for group in gallery if place < len(group.cards)]
    for done, card in enumerate(order):
        progress(done, len(order))
        try:
            pictures = [_checked(made) for made in data_filter.illustrate(card.clip, rows[card.clip.id])]
        except Exception as error:
            _log.warning("no pictures of %s: %s: %s", card.clip.id, type(error).__name__, error)
            card.remark = f"No pictures: {type(error).__name__}: {error}"
            continue
        for made in pictures:
            if len(made.data) > left:
                card.remark = "Pictures are left out to keep the page small."
                break
            left -= len(made.data)
            source = f"data:{made.media_type};base64,{base64.b64encode(made.data).decode()}"
            card.pictures.append(Picture(made.title, made.caption, source))
    for group in gallery:
        group.cards.sort(key=lambda card: not card.pictures)  # cards of one height stand side by side
    progress(len(order), len(order))


def _checked(made: Illustration) -> Illustration:
    if made.media_type not in SHOWN:
        raise ValueError(f"{made.title!r} is {made.media_type}; a page shows {', '.join(SHOWN)}")
    return made


def _card(clip: Clip, row: Row, decision: Decided, policy: Mapping[str, Any]) -> Card:
    end = "the end" if clip.end_s is None else f"{clip.end_s:.4g}"
    span = "" if clip.end_s is None and clip.start_s == 0 else f"{clip.start_s:.4g} to {end} s"
    name = clip.path.replace("\\", "/").rpartition("/")[2]
    return Card(clip, name, span, decision.reason, decision.rules, _figures(row, policy))


def _figures(row: Row, policy: Mapping[str, Any]) -> list[Figure]:
    """Return the scores that the policy sets bounds to; if it sets none, the first ones."""
    numbers = {name: getattr(row, name) for name in type(row).model_fields}
    numbers = {name: _values(value) for name, value in numbers.items() if _values(value)}
    bounds = {name: Bounds.of(policy, name) for name in numbers}
    shown = [name for name in numbers if bounds[name]] or list(numbers)[:4]
    rejected = {name: any(bounds[name].reject(value) for value in numbers[name]) for name in shown}
    shown = sorted(shown, key=lambda name: not rejected[name])[:_MOST_FIGURES]
    return [Figure(name, ", ".join(map(figure, numbers[name])), str(bounds[name]), rejected[name]) for name in shown]


def _values(value: Any) -> list[float]:
    values = value if isinstance(value, list | tuple) and len(value) <= _MOST_FIGURES else [value]
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
