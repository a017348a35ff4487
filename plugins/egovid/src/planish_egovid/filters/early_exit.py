"""EarlyExit: leaving out costly axes for clips that cheap ones already reject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from planish.errors import ConfigError, did_you_mean

from planish_egovid.policy.decision import measured
from planish_egovid.policy.rule import Rule, Threshold


class EarlyExit:
    """Looks at what is measured so far. What is not measured yet rejects nothing, and quantiles do not bind."""

    def __init__(self, rules: Sequence[Rule], thresholds: Mapping[str, Threshold]) -> None:
        """Bind rules.

        Args:
            rules: Those of the filter.
            thresholds: Metric -> bounds; the rules' own defaults if there are none.

        Raises:
            ConfigError: A metric has no rule.
        """
        known = [rule.metric for rule in rules]
        for metric in thresholds:
            if metric not in known:
                hint = did_you_mean(metric, known) or f"; known metrics: {', '.join(known)}"
                raise ConfigError(f"early_exit_thresholds.{metric}: unknown metric{hint}")
        chosen = thresholds or {rule.metric: rule.default for rule in rules}
        self._bounds = [(rule, chosen[rule.metric]) for rule in rules if rule.metric in chosen]

    def rejects(self, values: Mapping[str, Any]) -> bool:
        """Return whether the columns so far break a bound."""
        for rule, bounds in self._bounds:
            if rule.column not in values:
                continue
            value = measured(rule, SimpleNamespace(**{rule.column: values[rule.column]}))
            if value is None:
                continue
            if (bounds.min is not None and value < bounds.min) or (bounds.max is not None and value > bounds.max):
                return True
        return False
