"""The policy of a filter, made from the rules of its axes: one threshold a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planish.config import Config
from pydantic import Field, create_model

from planish_egovid.policy.rule import Rule, Threshold


def policy_model(name: str, rules: Sequence[Rule], module: str = __name__) -> type[Config]:
    """Return the type of a policy with one :class:`Threshold` for each rule, under the name of its metric.

    Args:
        name: Of the type.
        rules: In the order in which reasons are given.
        module: Where the type is to be found.

    Raises:
        TypeError: Two rules have the same metric.
    """
    metrics = [rule.metric for rule in rules]
    twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
    if twice:
        raise TypeError(f"{name}: more than one rule for {', '.join(twice)}; rename one's metric")
    fields: dict[str, Any] = {
        rule.metric: (Threshold, Field(rule.default, description=_described(rule))) for rule in rules
    }
    made: type[Config] = create_model(name, __base__=Config, __module__=module, **fields)
    made.__doc__ = "Thresholds that a clip must keep, in the order in which reasons are given."
    return made


def preset_values(rules: Sequence[Rule], thresholds: Mapping[str, Threshold]) -> dict[str, dict[str, Any]]:
    """Return the values of a policy in which only ``thresholds`` bind; those of metrics without a rule are left out."""
    return {rule.metric: thresholds.get(rule.metric, Threshold()).model_dump(mode="json") for rule in rules}


def _described(rule: Rule) -> str:
    unit = f" [{rule.unit}]" if rule.unit else ""
    return f"{rule.description or rule.column}{unit}"
