"""Which bounds a policy sets to which column, as far as its field names say so.

A page knows nothing of a filter but its columns and its policy. A column's bounds are where the policy has a field
of the column's name with numbers ``min`` and ``max`` in it, or fields ``min_<column>`` and ``max_<column>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """The values of a column that a policy keeps.

    Attributes:
        low: The smallest; None for no such bound.
        high: The largest.
    """

    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, policy: Mapping[str, Any], column: str) -> Bounds:
        """Return what a settled policy, as JSON values, sets to a column."""
        field = policy.get(column)
        nested = field if isinstance(field, Mapping) else {}
        return cls(
            _number(nested.get("min"), policy.get(f"min_{column}")),
            _number(nested.get("max"), policy.get(f"max_{column}")),
        )

    def __bool__(self) -> bool:
        """Return whether there is any bound."""
        return self.low is not None or self.high is not None

    def reject(self, value: float) -> bool:
        """Return whether a value lies outside."""
        return (self.low is not None and value < self.low) or (self.high is not None and value > self.high)

    def __str__(self) -> str:
        """Return the bounds in words, such as ``3 to 35``."""
        if self.low is not None and self.high is not None:
            return f"{figure(self.low)} to {figure(self.high)}"
        if self.low is not None:
            return f"at least {figure(self.low)}"
        return "" if self.high is None else f"at most {figure(self.high)}"


def figure(value: float) -> str:
    """Return a number for a person: integers in full, others to four digits."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _number(*values: Any) -> float | None:
    found = (value for value in values if isinstance(value, int | float) and not isinstance(value, bool))
    return next(found, None)
