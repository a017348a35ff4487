"""The model of cost behind ``planish egovid estimate``."""

from __future__ import annotations

from pathlib import Path

import pytest
from planish.benchmark import BenchmarkResult, Measurement, Row, collect, write_result
from planish.cli.app import main
from planish.errors import ConfigError, DataError
from planish_egovid.benchmark.plan_5m import PUBLISHED_GPU_HOURS, Rates, Sizes, model_rates, plan, rates_of


def result(*, oracle_passed: bool = True) -> BenchmarkResult:
    def row(case: str, value: float, against: float | None = None) -> Row:
        ours, kind = Measurement.of([value]), {"metric": "rate", "unit": "clips/s", "better": "higher"}
        if against is None:
            return Row(case=case, ours=ours, **kind)
        return Row.compare(case, ours, {"peer": Measurement.of([against])}, against="peer", **kind)

    rows = [
        row("all axes/120 frames, 960x540, one core", 0.9),
        row("motion, consistency, clarity/120 frames, 960x540, one core", 1.5),
        row("2 processes, 48 clips", 2.7, 1.5),
        row("Ray, 2 workers, 48 clips", 2.43, 2.7),
        row("CLIP ViT-L/14/batch64", 300.0),
        row("CLIP ViT-L/14/batch256", 450.0),
    ]
    return collect("egovid", rows, oracle_passed=oracle_passed)


def test_rates_are_read_from_a_result() -> None:
    rates = rates_of(result())
    assert (rates.core, rates.scaling, rates.engine) == (1.5, pytest.approx(0.9), 1.0)
    assert rates.core_in_pool == pytest.approx(1.35)
    assert rates_of(result(), engine="ray").core_in_pool == pytest.approx(1.35 * 0.9)
    assert rates_of(result(), axes="all axes").core == 0.9
    assert model_rates(result(), ["clip"]) == [("clip", 450.0, "CLIP ViT-L/14/batch256")]


def test_results_that_say_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="failed its oracle"):
        rates_of(result(oracle_passed=False))
    with pytest.raises(DataError, match="no row that begins with 'depth/'; it has 'all axes/120"):
        rates_of(result(), axes="depth")
    with pytest.raises(ConfigError, match="rate 'core' is 0"):
        Rates(0.0)


def test_processors_set_the_pace() -> None:
    found = plan(3_600_000, Rates(2.0, models=(("clip", 500.0),)), cores=100, gpus=1, sizes=Sizes(1e6, 6e5, 400))
    assert found.core_hours == pytest.approx(500)
    assert found.hours == pytest.approx(5)
    assert found.gpu_hours == {"clip": pytest.approx(2)}
    assert found.bound_by == "processors"
    assert found.gpus_to_keep_up == pytest.approx(0.4)
    assert found.read_bytes_per_s == pytest.approx(2e8)
    assert (found.read_bytes, found.handed_over_bytes, found.stored_bytes) == (3.6e12, 2.16e12, 1.44e9)


def test_gpus_set_the_pace() -> None:
    rates = Rates(2.0, models=(("clip", 500.0), ("raft", 10.0)))
    found = plan(3_600_000, rates, cores=100, gpus=4)
    assert found.hours == pytest.approx(102 / 4)
    assert found.bound_by == "GPUs"
    assert plan(3_600_000, rates, cores=100, gpus=8).hours == pytest.approx(found.hours / 2)
    assert plan(3_600_000, rates, cores=100, gpus=21).bound_by == "processors"


def test_published_hours_are_the_sum_of_the_scripts() -> None:
    assert pytest.approx(1000 + 5000 / 3 + 750 + 750) == PUBLISHED_GPU_HOURS


def test_estimate_reads_a_result_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(result(), tmp_path / "egovid.json")
    assert main(["egovid", "estimate", "--result", str(tmp_path / "egovid.json"), "--engine", "ray"]) == 0
    listed = capsys.readouterr().out
    assert "1.5 clips/s a core: motion, consistency, clarity/120 frames" in listed
    assert "0.9 of the pool: Ray, 2 workers" in listed
    assert main(["egovid", "estimate", "--result", str(tmp_path / "none.json")]) == 2
