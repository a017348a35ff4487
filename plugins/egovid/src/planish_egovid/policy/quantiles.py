"""Quantiles of a data set, turned into bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from planish.config import Config
from planish.errors import ConfigError
from planish.interfaces import Row

from planish_egovid.policy.decision import measured
from planish_egovid.policy.rule import Rule, Threshold


def settled(policy: Config, rows: Iterable[Row], rules: Sequence[Rule]) -> Config:
    """Return a policy whose quantiles are numbers.

    A quantile is taken over the rows that have the metric, interpolated between neighbours. Beside a bound that is
    given as a number the stricter one counts. Where no row has the metric there is nothing to bound.

    Args:
        policy: One threshold a rule, under its metric.
        rows: All rows of the data set; read once, and only if a quantile is asked for.
        rules: The rules of the policy.

    Raises:
        ConfigError: The bounds of a metric come to lie the wrong way round.
    """
    asked = [rule for rule in rules if _has_quantile(getattr(policy, rule.metric))]
    if not asked:
        return policy
    values: dict[str, list[float]] = {rule.metric: [] for rule in asked}
    for row in rows:
        if row.error is not None:
            continue
        for rule in asked:
            value = measured(rule, row)
            if value is not None:
                values[rule.metric].append(value)
    bounds = {
        rule.metric: _in_numbers(rule.metric, getattr(policy, rule.metric), values[rule.metric]) for rule in asked
    }
    return policy.model_copy(update=bounds)


def _has_quantile(bounds: Threshold) -> bool:
    return bounds.min_quantile is not None or bounds.max_quantile is not None


def _in_numbers(metric: str, bounds: Threshold, values: Sequence[float]) -> Threshold:
    low, high = bounds.min, bounds.max
    if values and bounds.min_quantile is not None:
        found = float(np.quantile(values, bounds.min_quantile))
        low = found if low is None else max(low, found)
    if values and bounds.max_quantile is not None:
        found = float(np.quantile(values, bounds.max_quantile))
        high = found if high is None else min(high, found)
    if low is not None and high is not None and low > high:
        raise ConfigError(
            f"policy.{metric}: over this data set the lower bound comes to {low:g} and the upper one to {high:g}, so "
            "no value could be kept; loosen a number or a quantile"
        )
    return Threshold(min=low, max=high, missing=bounds.missing)
