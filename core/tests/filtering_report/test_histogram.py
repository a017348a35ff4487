"""Histograms count every value once, on the side of its clip, over a range in which a reader sees something."""

import math

import numpy as np
import pytest
from planish.config import Config
from planish.filtering.local_engine import LocalEngine
from planish.filtering.report.bounds import Bounds
from planish.filtering.report.histogram import histograms
from planish.filtering.run import score_clips
from planish.filtering.store import ScoreStore
from planish.interfaces import Clip, DataFilter, Decision, Row
from pydantic import Field


class Measured(DataFilter):
    """Returns the values that clips bring along."""

    name = "measured"
    summary = "values that clips bring along"

    class Config(Config):
        """Nothing to choose."""

    class Policy(Config):
        """Nothing to choose."""

    class Columns(Row):
        """One column of each kind."""

        amount: float | None = Field(None, description="an amount")
        count: int | None = Field(None, description="a number of things")
        parts: list[float] | None = Field(None, description="some amounts")
        path: list[float] | None = Field(None, description="many amounts")
        constant: float | None = Field(None, description="always the same")
        never: float | None = Field(None, description="never there")
        sharp: bool | None = Field(None, description="a truth value")
        note: str | None = Field(None, description="a text")

    def score(self, clips):
        return [self.Columns(clip_id=clip.id, **clip.extra) for clip in clips]

    def decide(self, row, policy=None):
        return Decision(row.error is None, row.error or "")


def run(folder, rows, keep, policy=None):
    """Store rows and return (histograms by column, flat columns by column)."""
    clips = [Clip(str(number), "none.mp4", extra=row) for number, row in enumerate(rows)]
    score_clips(Measured(), clips, folder, LocalEngine(in_process=True))
    drawn, flat = histograms(ScoreStore.open(folder), Measured(), np.array(keep), policy or {})
    return {one.column: one for one in drawn}, {one.column: one.says for one in flat}


@pytest.fixture
def made(tmp_path):
    values = np.random.default_rng(0)
    rows = [
        {
            "amount": float(values.normal(5, 1)),
            "count": int(values.integers(0, 5)),
            "parts": values.random(3).tolist(),
            "path": [0.0] * 40,
            "constant": 4.0,
            "sharp": True,
            "note": "x",
        }
        for _ in range(300)
    ]
    rows[0]["amount"] = rows[1]["amount"] = None
    rows[2]["amount"] = 900.0
    rows.append({"error": "gone"})
    keep = [number % 3 == 0 for number in range(301)]
    return rows, keep, run(tmp_path / "out", rows, keep, {"count": {"min": 2, "max": None}})


def test_each_value_is_counted_once_on_its_side(made):
    rows, keep, (drawn, _) = made
    for name, one in drawn.items():
        values = [(np.atleast_1d(row[name]), kept) for row, kept in zip(rows, keep, strict=True) if row.get(name)]
        values += [([0], kept) for row, kept in zip(rows, keep, strict=True) if row.get(name) == 0]
        assert one.kept.sum() == sum(len(some) for some, kept in values if kept), name
        assert one.dropped.sum() == sum(len(some) for some, kept in values if not kept), name


def test_bins_agree_with_counting_by_hand(made):
    rows, keep, (drawn, _) = made
    one = drawn["parts"]
    pooled = [(v, kept) for row, kept in zip(rows, keep, strict=True) for v in row.get("parts", ())]
    for low, high, count in zip(one.edges[1:-2], one.edges[2:-1], one.kept[1:-1], strict=True):
        assert count == sum(kept and low <= value < high for value, kept in pooled)


def test_columns_without_a_distribution_are_named(made):
    _, _, (drawn, flat) = made
    assert set(drawn) == {"amount", "count", "parts"}
    assert flat == {"constant": "4 everywhere", "never": "no values"}


def test_columns_that_decide_come_first_with_their_bounds(made):
    _, _, (drawn, _) = made
    assert next(iter(drawn)) == "count"
    assert drawn["count"].bounds == Bounds(2, None)
    assert drawn["count"].text == "Histogram of count: 300 values from 0 to 4, median 2; kept if at least 2"


def test_missing_values_are_told_apart_from_failed_clips(made):
    _, _, (drawn, _) = made
    assert drawn["amount"].missing == 2
    assert drawn["amount"].caption == "an amount; no value for 2 clips"
    assert drawn["parts"].caption == "some amounts; all values of a clip count"


def test_a_lone_extreme_does_not_flatten_the_rest(made):
    _, _, (drawn, _) = made
    amount = drawn["amount"]
    assert amount.high == 900
    assert amount.edges[-1] < 20
    assert (amount.kept + amount.dropped > 0).sum() > 10


def test_integers_get_a_bin_each(made):
    _, _, (drawn, _) = made
    assert drawn["count"].edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]


def test_near_bounds_are_in_view_and_far_ones_are_not(tmp_path):
    rows = [{"amount": 1 + n / 100} for n in range(50)]
    near, _ = run(tmp_path / "near", rows, [True] * 50, {"amount": {"min": 0.9, "max": 2.0}})
    assert near["amount"].edges[0] <= 0.9
    assert near["amount"].edges[-1] >= 2
    far, _ = run(tmp_path / "far", rows, [True] * 50, {"amount": {"max": 1e6}})
    assert far["amount"].edges[-1] < 2


def test_infinite_values_are_left_out(tmp_path):
    drawn, _ = run(tmp_path / "out", [{"amount": v} for v in (1.0, 2.0, math.inf, math.nan)], [True] * 4)
    assert drawn["amount"].kept.sum() == 2
    assert drawn["amount"].missing == 2


def test_drawing_names_bounds_and_uses_the_colours_of_the_page(made):
    _, _, (drawn, _) = made
    svg = drawn["count"].svg("key", wide=True)
    assert "min 2" in svg
    assert "var(--series-2)" in svg
    assert "var(--series-1)" in svg
    assert drawn["amount"].svg("key", wide=False).count("min ") == 0
