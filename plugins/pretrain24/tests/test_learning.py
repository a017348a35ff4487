"""The learning experiment as a program: it runs, continues, reports and draws."""

import json
from pathlib import Path

import pytest
from planish.benchmark import BenchmarkOptions, read_result
from planish_pretrain24.benchmark.flip_rate_plot import main as draw
from planish_pretrain24.benchmark.learning import VARIANTS, bench, main, oracle_passed


def test_the_oracle_holds() -> None:
    assert oracle_passed("cpu")


def test_the_program_writes_rows_continues_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, figure = tmp_path / "learning.json", tmp_path / "flips.svg"
    arguments = ["--quick", "--device", "cpu", "--json", str(path)]
    assert main([*arguments, "--variants", "dense,fst"]) == 0
    first = json.loads(path.read_text())
    assert main([*arguments, "--plot", str(figure), "--variants", ",".join([*VARIANTS, "fst@0.5"])]) == 0
    result = read_result(path)
    assert result.oracle_passed
    runs = {row.extra["variant"]: row for row in result.rows if row.metric == "val_loss"}
    assert set(runs) == {*VARIANTS, "fst@0.5"}
    assert runs["fst@0.5"].extra["decay"] == 0.5
    again = {row["case"]: row for row in first["rows"]}
    for variant in ("dense", "fst"):
        assert runs[variant].model_dump(mode="json") == again[runs[variant].case], "kept, not run again"
    for row in runs.values():
        assert [step for step, _ in row.extra["flip_rate"]] == list(range(2, 25, 2))
        assert row.ours.median < 5.6
    (search,) = [row for row in result.rows if row.metric == "mu"]
    assert search.extra["search"]["chosen"] == runs["fst"].extra["decay"]
    assert len(runs["sste"].extra["scale"]) == len(runs["sste-dynamic-scale"].extra["scale"]) > 0
    assert figure.read_text().lstrip().startswith("<?xml")
    assert draw([str(path), str(tmp_path / "again.svg")]) == 0
    assert (tmp_path / "again.svg").read_bytes() == figure.read_bytes(), "the figure depends on the file alone"
    assert "flip rate in the last sixth" in capsys.readouterr().out


def test_other_settings_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "learning.json"
    arguments = ["--quick", "--device", "cpu", "--json", str(path), "--variants", "dense"]
    assert main(arguments) == 0
    assert main([*arguments, "--steps", "12"]) == 0
    assert {row.extra["settings"]["steps"] for row in read_result(path).rows} == {12}


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--device", "cpu", "--variants", "desne"]) == 2
    assert capsys.readouterr().err.startswith("error: variant 'desne' is unknown")
    assert draw([str(tmp_path / "missing.json"), str(tmp_path / "x.svg")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()


def test_the_registered_benchmark_runs() -> None:
    result = bench(BenchmarkOptions(device="cpu", quick=True, command="planish bench pretrain24-learning --quick"))
    assert result.benchmark == "pretrain24-learning"
    assert len(result.rows) == len(VARIANTS) + 1
