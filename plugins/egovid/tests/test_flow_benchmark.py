"""The benchmark of flow accuracy gives rows that say what the tests assert."""

from __future__ import annotations

import numpy as np
import pytest
from planish.benchmark import BenchmarkOptions, collect
from planish.errors import UnsupportedError
from planish_egovid.benchmark.flow_accuracy import bench, rows


@pytest.fixture(scope="module")
def found() -> list:
    return rows(presets=("fast",), seconds=1.2, repeats=1)


def test_rows_compare_chaining_with_its_alternatives(found: list) -> None:
    result = collect("egovid-flow", found, oracle_passed=True)
    assert {row.metric for row in result.rows} == {"endpoint error", "magnitude error", "time"}
    assert len({(row.case, row.metric) for row in result.rows}) == len(result.rows) == 2 * 2 * 3
    assert all(set(row.peers) == {"plain", "prewarp"} for row in result.rows)
    assert all(np.isfinite(row.ours.median) for row in result.rows)


def test_at_stride_8_chaining_is_nearer_to_the_truth_over_all_pixels(found: list) -> None:
    long = [row.extra for row in found if row.metric == "magnitude error" and row.case.endswith("stride 8")]
    assert len(long) == 2
    for extra in long:
        assert abs(extra["chain"]["clip_all_pct"]) < 0.5 * abs(extra["plain"]["clip_all_pct"])
        assert extra["chain"]["worst_pair_visible_pct"] < 2.0


def test_the_program_holds_itself_to_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="--device cpu"):
        bench(BenchmarkOptions("cuda"))
    assert bench(BenchmarkOptions("cpu", quick=True)).oracle_passed
    monkeypatch.setattr("planish_egovid.benchmark.flow_accuracy.WITHIN_PCT", 0.01)
    failed = bench(BenchmarkOptions("cpu", quick=True))
    assert not failed.oracle_passed
    assert "in the worst pair" in failed.notes[0]
