"""Deciding: a row against thresholds, with a reason for a person."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

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
        rules: In the order of importance: the first that is broken gives the reason.
    """
    if row.error is not None:
        return Decision(False, row.error)
    broken = [(rule, sentence) for rule in rules if (sentence := _objection(rule, row, getattr(policy, rule.metric)))]
    if not broken:
        return Decision(True)
    return Decision(False, broken[0][1], tuple(rule.metric for rule, _ in broken))


def _objection(rule: Rule, row: Row, bounds: Threshold) -> str:
    """Return how a row breaks a rule, or an empty string."""
    value = measured(rule, row)
    if value is None:
        return f"{rule.metric} could not be measured" if bounds.missing == "reject" else ""
    if bounds.min_quantile is not None or bounds.max_quantile is not None:
        _warn_unsettled(rule.metric)
    if bounds.min is not None and value < bounds.min:
        return _sentence(rule, rule.low, value, "below", bounds.min)
    if bounds.max is not None and value > bounds.max:
        return _sentence(rule, rule.high, value, "above", bounds.max)
    return ""


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
