"""Rule: what a policy asks of one column, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from planish.config import Config
from pydantic import Field, model_validator


class Threshold(Config):
    """Bounds of one metric; a bound that is null does not exist.

    Quantile bounds depend on the data set: they are turned into numbers over all rows before any clip is decided.
    """

    min: float | None = Field(None, description="smallest value that is kept")
    max: float | None = Field(None, description="largest value that is kept")
    min_quantile: float | None = Field(
        None, ge=0, le=1, description="share of the data set that is dropped at the low end"
    )
    max_quantile: float | None = Field(
        None, ge=0, le=1, description="share of the data set that stays below the upper bound"
    )
    missing: Literal["keep", "reject"] = Field("keep", description="what becomes of clips that have no value")

    @model_validator(mode="after")
    def _in_order(self) -> Threshold:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}; no value could be kept")
        return self


@dataclass(frozen=True)
class Rule:
    """What a policy asks of one metric.

    Attributes:
        metric: Name of the policy's field.
        column: Column that it looks at.
        default: Bounds unless the user says otherwise.
        low: What a value below the bounds means, such as ``"motion too low"``.
        high: What a value above them means.
        reduce: How a column of several values becomes one: ``"min"``, ``"max"`` or ``"mean"``; None for one value.
        unit: For messages.
        description: Of the policy's field.
    """

    metric: str
    column: str
    default: Threshold
    low: str = ""
    high: str = ""
    reduce: Literal["min", "max", "mean"] | None = None
    unit: str = ""
    description: str = ""

    def value(self, row: Any) -> float | None:
        """Return the metric of a row, or None if the row has none."""
        found = getattr(row, self.column)
        if found is None or self.reduce is None:
            return found
        values = [value for value in found if value is not None]
        if not values:
            return None
        if self.reduce == "mean":
            return float(sum(values) / len(values))
        return float(min(values) if self.reduce == "min" else max(values))
