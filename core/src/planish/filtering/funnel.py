"""Funnel: how many clips came in, what each rule took away, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, computed_field

from planish.filtering.reason import reason_class
from planish.interfaces.data_filter import Decision

if TYPE_CHECKING:
    from rich.table import Table

OTHER = "other reasons"
_MOST_CLASSES = 500


class RuleCount(BaseModel):
    """What one rule takes away."""

    model_config = ConfigDict(frozen=True)

    rule: str = Field(description="name of the rule; where rules have no names, the reason without its numbers")
    first: int = Field(description="clips for which it is the first rule that rejects them")
    left: int = Field(description="clips left after this rule and those before it")
    alone: int = Field(description="clips that only this rule rejects: what switching it off would bring back")
    any: int = Field(description="clips that it rejects, whatever other rules do")


class Combination(BaseModel):
    """Rules that reject the same clips."""

    model_config = ConfigDict(frozen=True)

    rules: tuple[str, ...] = Field(description="names, the one that is the reason first")
    clips: int = Field(description="clips that exactly these rules reject")


class Funnel(BaseModel):
    """How many clips came in, what was dropped by which rule, and what is left. Everything is counted in clips."""

    model_config = ConfigDict(frozen=True)

    clips: int = Field(description="clips that were decided")
    kept: int = Field(description="clips that are kept")
    errors: dict[str, int] = Field(description="class of error -> clips that could not be scored, most first")
    combinations: tuple[Combination, ...] = Field(description="which rules reject together, most clips first")
    named: bool = Field(description="whether rules have names; otherwise clips are counted by the class of the reason")
    policy: dict[str, Any] = Field(description="policy as it was given")
    settled: dict[str, Any] = Field(description="policy as it decided, with quantiles worked out")

    @computed_field(description="clips that could not be scored")  # type: ignore[prop-decorator]
    @property
    def failed(self) -> int:
        """Clips that could not be scored."""
        return sum(self.errors.values())

    @computed_field(description="what each rule takes away, in the order of the rules")  # type: ignore[prop-decorator]
    @cached_property
    def rules(self) -> tuple[RuleCount, ...]:
        """What each rule takes away, in the order of the rules."""
        left, counts = self.clips - self.failed, []
        for name in _in_order(self.combinations, list(self.policy)):
            first = sum(c.clips for c in self.combinations if c.rules[0] == name)
            alone = sum(c.clips for c in self.combinations if c.rules == (name,))
            left -= first
            counts.append(RuleCount(rule=name, first=first, left=left, alone=alone, any=self.both(name, name)))
        return tuple(counts)

    @computed_field(description="rule -> rule -> clips that both reject")  # type: ignore[prop-decorator]
    @cached_property
    def overlap(self) -> dict[str, dict[str, int]]:
        """Rule -> rule -> clips that both reject; on the diagonal, what the rule rejects."""
        names = [count.rule for count in self.rules]
        return {one: {other: self.both(one, other) for other in names} for one in names}

    def both(self, one: str, other: str) -> int:
        """Return how many clips two rules reject together."""
        return sum(c.clips for c in self.combinations if one in c.rules and other in c.rules)

    def table(self) -> Table:
        """Return the funnel for a terminal."""
        from rich.markup import escape
        from rich.table import Table

        shown = Table(title=f"{self.kept:,} of {self.clips:,} clips kept ({share(self.kept, self.clips)})")
        shown.add_column("rule", overflow="fold")
        for name in ("drops", "left", "drops alone", "rejects"):
            shown.add_column(name, justify="right")
        shown.add_row("clips", "", f"{self.clips:,}", "", "")
        if self.failed:
            shown.add_row("could not be scored", f"{self.failed:,}", f"{self.clips - self.failed:,}", "", "")
        for count in self.rules:
            shown.add_row(
                escape(count.rule), f"{count.first:,}", f"{count.left:,}", f"{count.alone:,}", f"{count.any:,}"
            )
        shown.add_section()
        shown.add_row("kept", "", f"{self.kept:,}", "", "")
        return shown


class FunnelCounter:
    """Counts decisions as they are made; its size depends on the rules, not on the clips."""

    def __init__(self) -> None:
        self.clips = 0
        self.kept = 0
        self.named = True
        self._errors: dict[str, int] = {}
        self._combinations: dict[tuple[str, ...], int] = {}

    def count(self, decision: Decision, error: str | None) -> None:
        """Count a decision.

        Args:
            decision: What the filter decided.
            error: The row's error, or None.
        """
        self.clips += 1
        if decision.keep:
            self.kept += 1
        elif error is not None:
            _add(self._errors, reason_class(error))
        else:
            self.named = self.named and bool(decision.rules)
            _add(self._combinations, counted_rules(decision))

    def funnel(self, policy: Mapping[str, Any], settled: Mapping[str, Any]) -> Funnel:
        """Return the funnel of all decisions so far.

        Args:
            policy: The policy as it was given, as JSON values.
            settled: The policy as it decided.
        """
        combinations = sorted(self._combinations.items(), key=lambda item: (-item[1], item[0]))
        return Funnel(
            clips=self.clips,
            kept=self.kept,
            errors=dict(sorted(self._errors.items(), key=lambda item: (-item[1], item[0]))),
            combinations=tuple(Combination(rules=rules, clips=clips) for rules, clips in combinations),
            named=self.named,
            policy=dict(policy),
            settled=dict(settled),
        )


def counted_rules(decision: Decision) -> tuple[str, ...]:
    """Return the rules under which a rejection is counted; for a filter without named rules, the reason's class."""
    return tuple(decision.rules) or (reason_class(decision.reason),)


def share(part: int, whole: int) -> str:
    """Return a part as a percentage that never rounds something to nothing or to all."""
    if whole == 0:
        return "–"
    percent = 100 * part / whole
    shown = f"{percent:.1f}"
    if 0 < part < whole:
        shown = "< 0.1" if shown == "0.0" else "> 99.9" if shown == "100.0" else shown
    return f"{shown} %"


def _add(counts: dict[Any, int], key: Any) -> None:
    if key not in counts and len(counts) >= _MOST_CLASSES:
        key = (OTHER,) if isinstance(key, tuple) else OTHER
    counts[key] = counts.get(key, 0) + 1


def _in_order(combinations: Iterable[Combination], fields: Sequence[str]) -> list[str]:
    """Return all rules so that each comes before those that decisions name after it.

    A decision names its rules in the filter's order, but only those that reject the clip; what one clip leaves open,
    another settles. Rules that no clip compares go by the policy's fields that they are named for, then by the clips
    that they are the first to reject.
    """
    first: dict[str, int] = {}
    before: dict[str, set[str]] = {}
    for combination in combinations:
        for position, name in enumerate(combination.rules):
            before.setdefault(name, set()).update(combination.rules[:position])
            first[name] = first.get(name, 0) + (combination.clips if position == 0 else 0)
    places = {name: place for place, name in enumerate(fields)}
    place = {name: places.get(name, places.get(name.partition(".")[0], len(places))) for name in before}
    ordered: list[str] = []
    while before:
        free = [name for name, earlier in before.items() if not earlier - set(ordered)]
        # Decisions that contradict each other have no order: then all that are left are free.
        name = min(free or before, key=lambda n: (place[n], -first[n], n))
        ordered.append(name)
        del before[name]
    return ordered
