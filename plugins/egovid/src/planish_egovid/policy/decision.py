"""Deciding: a row against thresholds, with a reason for a person."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from planish.config import Config
from planish.interfaces import Decision, Row

from planish_egovid.policy.rule import Rule, Threshold

_log = logging.getLogger(__name__)
_warned: set[str] = set()


def decide(row: Row, policy: Config, rules: Sequence[Rule]) -> Decision:
    """Return whether a row keeps every threshold of a policy.

    A quantile that has not been turned into a number, by ``settle``, does not bind; this is logged once a metric.

    Args:
        row: Scores of a clip.
        policy: One threshold a rule, under its metric.
        rules: In the order of importance: the first that is broken gives the reason, and what the others mean is added.
    """
    if row.error is not None:
        return Decision(False, row.error)
    found = [(rule, _objection(rule, row, getattr(policy, rule.metric))) for rule in rules]
    broken = [(rule, objection) for rule, objection in found if objection is not None]
    if not broken:
        return Decision(True)
    first = broken[0][1]
    meanings = dict.fromkeys(objection.meaning for _, objection in broken[1:] if objection.meaning)
    meanings.pop(first.meaning, None)
    also = f" (also {', '.join(meanings)})" if meanings else ""
    return Decision(False, first.sentence + also, tuple(rule.metric for rule, _ in broken))


class _Objection(NamedTuple):
    meaning: str
    sentence: str


def _objection(rule: Rule, row: Row, bounds: Threshold) -> _Objection | None:
    """Return how a row breaks a rule, or None."""
    value = measured(rule, row)
    if value is None:
        return _Objection("", f"{rule.metric} could not be measured") if bounds.missing == "reject" else None
    if bounds.min_quantile is not None or bounds.max_quantile is not None:
        _warn_unsettled(rule.metric)
    if bounds.min is not None and value < bounds.min:
        return _Objection(rule.low, _sentence(rule, rule.low, value, "below", bounds.min))
    if bounds.max is not None and value > bounds.max:
        return _Objection(rule.high, _sentence(rule, rule.high, value, "above", bounds.max))
    return None


def measured(rule: Rule, row: Any) -> float | None:
    """Return the metric of a row, or None if it has none or one that is no number."""
    value: Any = rule.value(row)
    return None if value is None or not math.isfinite(value) else float(value)


def _sentence(rule: Rule, meaning: str, value: float, side: str, bound: float) -> str:
    shown, limit = _told_apart(value, bound)
    fact = f"{rule.metric} {shown}{' ' + rule.unit if rule.unit else ''} is {side} {limit}"
    return f"{meaning}: {fact}" if meaning else fact


def _told_apart(value: float, bound: float) -> tuple[str, str]:
    """Return both numbers with as few digits as tell them apart."""
    limit = f"{bound:g}" if float(f"{bound:g}") == bound else repr(bound)
    shown = (f"{value:.{digits}g}" for digits in (3, 5, 8))
    return next((text for text in shown if float(text) != bound), repr(value)), limit


def _warn_unsettled(metric: str) -> None:
    if metric not in _warned:
        _warned.add(metric)
        _log.warning(
            "the policy bounds %s by a quantile, which does not bind until it is settled over all rows",
            metric,
        )
