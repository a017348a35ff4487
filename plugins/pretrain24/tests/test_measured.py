"""What the documentation says was measured is what the recorded results say."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from planish.benchmark import BenchmarkResult, read_result
from planish_pretrain24 import execution
from planish_pretrain24.benchmark import measured_tables
from planish_pretrain24.benchmark.learning import Settings, search_row
from planish_pretrain24.decay_search import FEASIBLE

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/plugins/pretrain24.md"
RESULTS = ROOT / "docs/benchmarks"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the package")


@pytest.fixture(scope="module")
def learning() -> BenchmarkResult:
    return read_result(RESULTS / "pretrain24-learning.json")


@pytest.fixture(scope="module")
def speed() -> BenchmarkResult:
    return read_result(RESULTS / "pretrain24.json")


def _runs(result: BenchmarkResult) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in result.rows:
        if row.metric == "val_loss":
            found.setdefault(row.extra["variant"], []).append(row.extra)
    return {variant: sorted(runs, key=lambda run: run["seed"]) for variant, runs in found.items()}


def _mean(runs: list[dict[str, Any]], field: str) -> float:
    return sum(run[field] for run in runs) / len(runs)


def test_the_tables_of_the_page_are_those_of_the_results(tmp_path: Path) -> None:
    """If not, ``python3 -m planish_pretrain24.benchmark.measured_tables docs/benchmarks docs/plugins/pretrain24.md``"""
    copy = tmp_path / "page.md"
    shutil.copy(PAGE, copy)
    assert measured_tables.main([str(RESULTS), str(copy)]) == 0
    assert copy.read_text() == PAGE.read_text()


def test_a_number_that_is_no_longer_measured_is_replaced(learning: BenchmarkResult) -> None:
    page = PAGE.read_text()
    assert page.count("1.0267") == 1
    assert measured_tables.filled(page.replace("1.0267", "1.0000"), {"pretrain24-learning": learning}) == page


def test_a_page_without_a_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.md").write_text("nothing here")
    assert measured_tables.main([str(RESULTS), str(tmp_path / "page.md")]) == 2
    assert "no comment <!-- measured: pretrain24-learning -->" in capsys.readouterr().err


def test_the_losses_of_the_summary_are_those_of_the_curves_file(learning: BenchmarkResult) -> None:
    """The table's cells, computed here by themselves."""
    tables = measured_tables.learning(learning)
    runs = _runs(learning)
    dense = _mean(runs["dense"], "val_loss")
    for variant, percent in (("fst+finish", "2.6 %"), ("sste", "3.1 %"), ("ste", "6.3 %")):
        loss = _mean(runs[variant], "val_loss")
        assert f"{100 * (loss / dense - 1):.1f} %" == percent
        assert f"| {loss:.4f} (" in tables
        switch = runs[variant][0]["settings"]["steps"] * 5 // 6
        rates = [[rate for step, rate in run["flip_rate"] if step > switch] for run in runs[variant]]
        tail = sum(sum(r) / len(r) for r in rates) / len(rates)
        assert f"| {tail:.2e} |" in tables


def test_what_the_page_says_about_learning_holds(learning: BenchmarkResult) -> None:
    runs = _runs(learning)
    assert all(len(group) == 3 for group in runs.values())
    loss = {variant: _mean(group, "val_loss") for variant, group in runs.items()}
    others = [value for variant, value in loss.items() if variant not in ("dense", "fst+finish")]
    assert loss["dense"] < loss["fst+finish"] < min(others)
    assert max(loss, key=lambda variant: loss[variant]) == "ste"
    flips = {variant: _mean(group, "flip_rate_tail") for variant, group in runs.items()}
    assert flips["ste"] > flips["dense"] > flips["sste"] > flips["fst"]
    settings = runs["dense"][0]["settings"]
    for sparse, dense in zip(runs["fst"], runs["dense"], strict=True):
        ratio = [a / b for (step, a), (_, b) in zip(sparse["flip_rate"], dense["flip_rate"], strict=True) if step > 100]
        late = ratio[(settings["warmup"] - 100) // settings["mask_interval"] :]
        assert sum(ratio[:10]) / 10 < FEASIBLE[1]
        assert max(late) < 1
    for other in ("fst+finish", "fst-mvue-off"):
        assert all(a["val_loss"] < b["val_loss"] for a, b in zip(runs[other], runs["fst"], strict=True))
    seeds = [run["val_loss"] for run in runs["sste"]]
    means = [loss["sste"], loss["fst"], loss["fst+finish"]]
    assert max(seeds) - min(seeds) > max(means) - min(means)
    for run in runs["sste-dynamic-scale"]:
        scales = [scale for _, scale in run["scale"]]
        assert min(scales) < scales[0] < scales[-1] < 1.01 * scales[0]


def test_what_the_page_says_about_speed_holds(speed: BenchmarkResult) -> None:
    assert speed.oracle_passed
    matmuls = [row.gain for row in speed.rows if row.case.startswith("matmul/")]
    assert len(matmuls) == 18
    assert max(matmuls) < 2
    for row in speed.rows:
        if row.case.startswith("ffn/") and row.metric == "time":
            width, tokens = (int(part.lstrip("dtokens")) for part in row.case.split("/")[2:4])
            assert width >= execution.PAYS_FROM_FEATURES
            assert tokens == execution.PAYS_FROM_TOKENS
            assert row.gain > 1.1
        elif row.metric.startswith("peak memory"):
            assert row.ours.median - row.peers[measured_tables.DENSE].median > row.extra["packs_MiB"]


def test_the_documented_command_continues_the_recorded_result(learning: BenchmarkResult) -> None:
    """The default settings are those of the recorded rows, as the program compares them."""
    from planish_pretrain24.decay_search import DecaySearch, DecayTrial

    trial = DecayTrial(1e-3, 1e-3, 0.8, True)
    ours = search_row(DecaySearch(1e-3, 1e-3, (trial,), 200, 101), Settings(device="cuda")).extra["settings"]
    assert all(row.extra["settings"] == ours for row in learning.rows)
    assert len(learning.rows) == 22
