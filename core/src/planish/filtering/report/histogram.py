"""Histograms of numeric columns, kept and dropped clips apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from planish.filtering.report.bounds import Bounds, figure
from planish.filtering.row_schema import row_schema
from planish.filtering.store import ScoreStore
from planish.interfaces.data_filter import DataFilter
from planish.report.svg import INK, SERIES, drawing, to_svg

KEPT, DROPPED = 2, 1
"""Places of the colours in the page's series."""
_LONGEST_LIST = 16
_MOST_BINS = 36


@dataclass(frozen=True)
class Histogram:
    """How a column's values are distributed.

    Attributes:
        column: Its name.
        description: What it says of itself.
        edges: float64 [bins + 1], rising; what lies beyond is counted in the outermost bins.
        kept: int64 [bins], values of kept clips.
        dropped: int64 [bins], values of dropped clips.
        missing: Clips without a value, of those that could be scored.
        low: Smallest value.
        median: Middle value.
        high: Largest value.
        bounds: What the policy asks of it.
        pooled: Whether a clip has several values, which are counted one by one.
    """

    column: str
    description: str
    edges: NDArray[np.float64]
    kept: NDArray[np.int64]
    dropped: NDArray[np.int64]
    missing: int
    low: float
    median: float
    high: float
    bounds: Bounds
    pooled: bool

    @property
    def text(self) -> str:
        """The histogram in a sentence, for those who cannot see it."""
        values = int(self.kept.sum() + self.dropped.sum())
        asked = f"; kept if {self.bounds}" if self.bounds else ""
        return (
            f"Histogram of {self.column}: {values:,} values from {figure(self.low)} to {figure(self.high)}, median "
            f"{figure(self.median)}{asked}"
        )

    @property
    def caption(self) -> str:
        """What is to be known about it."""
        parts = [self.description]
        if self.pooled:
            parts.append("all values of a clip count")
        if self.missing:
            parts.append(f"no value for {self.missing:,} clip{'s' if self.missing > 1 else ''}")
        return "; ".join(part for part in parts if part)

    def svg(self, key: str, *, wide: bool) -> str:
        """Return the drawing.

        Args:
            key: Unique among the drawings of a page.
            wide: Whether it takes half of the page rather than a third.
        """
        with drawing(*((5.1, 2.6) if wide else (3.4, 2.2))) as (figure_, axes):
            left, width = self.edges[:-1], np.diff(self.edges)
            axes.bar(left, self.kept, width * 0.92, align="edge", color=SERIES[KEPT])
            axes.bar(left, self.dropped, width * 0.92, align="edge", bottom=self.kept, color=SERIES[DROPPED])
            for bound, side in ((self.bounds.low, -1), (self.bounds.high, 1)):
                if bound is not None:
                    self._draw_bound(axes, bound, side)
            axes.set_xlim(self.edges[0], self.edges[-1])
            if self.bounds:
                axes.set_ylim(top=1.16 * (self.kept + self.dropped).max())  # room for what the lines say
            axes.locator_params(axis="y", nbins=4, integer=True)
            axes.locator_params(axis="x", nbins=6 if wide else 5, integer=self.edges[0] % 1 == 0.5)
            return to_svg(figure_, key)

    def _draw_bound(self, axes: Any, bound: float, side: int) -> None:
        outside = (self.edges[0], bound) if side < 0 else (bound, self.edges[-1])
        axes.axvspan(*outside, color=SERIES[DROPPED], alpha=0.08, linewidth=0)
        axes.axvline(bound, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        near_right = bound > self.edges[0] + 0.7 * (self.edges[-1] - self.edges[0])
        axes.annotate(
            f"{'min' if side < 0 else 'max'} {figure(bound)}",
            (bound, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if near_right else 4, -2),
            textcoords="offset points",
            ha="right" if near_right else "left",
            va="top",
            fontsize=9.5,
        )


@dataclass(frozen=True)
class Flat:
    """A column without a distribution: one value everywhere, or none."""

    column: str
    says: str


def histograms(
    store: ScoreStore, data_filter: DataFilter, keep: NDArray[np.bool_], policy: Mapping[str, Any]
) -> tuple[list[Histogram], list[Flat]]:
    """Return the histograms of all numeric columns, those with bounds first, and the columns that have none.

    Lists of up to 16 values are pooled; longer ones, such as paths of a camera, are left out.

    Args:
        store: The scores.
        data_filter: The filter that made them.
        keep: bool [clips], which clips of the store's table are kept.
        policy: The settled policy, as JSON values.
    """
    made: list[Histogram] = []
    flat: list[Flat] = []
    scored = pc.is_null(store.table(["error"])["error"]).to_numpy(zero_copy_only=False)
    for name, column in _columns(store, data_filter):
        values, kept, missing = _values(column, keep, scored)
        if not len(values):
            flat.append(Flat(name, "no values"))
        elif values.min() == values.max():
            flat.append(Flat(name, f"{figure(values[0].item())} everywhere"))
        else:
            description = data_filter.Columns.model_fields[name].description or ""
            pooled = pa.types.is_list(column.type)
            made.append(_histogram(name, description, values, kept, missing, Bounds.of(policy, name), pooled))
    order = list(data_filter.Columns.model_fields)
    return sorted(made, key=lambda one: (not one.bounds, order.index(one.column))), flat


def _columns(store: ScoreStore, data_filter: DataFilter) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the numeric columns: those of one value a clip, read together, then short lists, one by one."""
    schema = row_schema(data_filter.Columns)
    kinds = {name: schema.field(name).type for name in data_filter.Columns.model_fields}
    numbers = [name for name, kind in kinds.items() if _is_number(kind)]
    table = store.table(numbers)
    lists = [name for name, kind in kinds.items() if pa.types.is_list(kind) and _is_number(kind.value_type)]
    for name in numbers:
        yield name, table[name]
    for name in lists:
        if _list_length(store, name) <= _LONGEST_LIST:
            yield name, store.table([name])[name]


def _histogram(
    name: str,
    description: str,
    values: NDArray[Any],
    kept: NDArray[np.bool_],
    missing: int,
    bounds: Bounds,
    pooled: bool,
) -> Histogram:
    edges = _edges(values, bounds)
    inside = np.clip(values, edges[0], edges[-1])
    return Histogram(
        column=name,
        description=description,
        edges=edges,
        kept=np.histogram(inside[kept], edges)[0],
        dropped=np.histogram(inside[~kept], edges)[0],
        missing=missing,
        low=values.min().item(),
        median=float(np.median(values)),
        high=values.max().item(),
        bounds=bounds,
        pooled=pooled,
    )


def _edges(values: NDArray[Any], bounds: Bounds) -> NDArray[np.float64]:
    """Return edges over the bulk of the values and over bounds that are not far from it."""
    low, high = np.quantile(values, [0.005, 0.995]) if len(values) > 200 else (values.min(), values.max())
    if low == high:
        low, high = values.min(), values.max()
    reach = high - low
    for bound in (bounds.low, bounds.high):
        if bound is not None and low - 2 * reach <= bound <= high + 2 * reach:
            low, high = min(low, bound), max(high, bound)
    if np.issubdtype(values.dtype, np.integer) and high - low < _MOST_BINS:
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1.0)
    margin = 0.02 * (high - low)
    start = low - margin if low != 0 else low
    bins = int(np.clip(np.sqrt(len(values)) * 1.5, 8, _MOST_BINS))
    return np.linspace(start, high + margin, bins + 1)


def _values(
    column: pa.ChunkedArray, keep: NDArray[np.bool_], scored: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_], int]:
    """Return finite values, whether the clip of each is kept, and how many scored clips have none."""
    if pa.types.is_list(column.type):
        owners = pc.list_parent_indices(column).to_numpy()
        numbers = pc.list_flatten(column)
    else:
        owners, numbers = np.arange(len(column)), column
    valid = pc.is_valid(numbers).to_numpy(zero_copy_only=False)
    values = pc.drop_null(numbers).to_numpy()
    owners = owners[valid]
    finite = np.isfinite(values)
    values, owners = values[finite], owners[finite]
    return values, keep[owners], int(scored.sum()) - len(np.unique(owners))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _list_length(store: ScoreStore, name: str) -> float:
    """Return how many values a list of the first shard has on average, without reading them."""
    for shard in store.shards.shards():
        metadata = pq.read_metadata(shard.path)
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(place)
                if chunk.path_in_schema.partition(".")[0] == name:
                    return float(chunk.num_values / max(1, metadata.row_group(group).num_rows))
    return 0.0
