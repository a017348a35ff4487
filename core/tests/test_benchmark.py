"""The benchmark schema, the timer, and the page."""

import json
import time

import pytest
from planish.benchmark import (
    BenchmarkResult,
    Measurement,
    Row,
    collect,
    interleave,
    page,
    read_result,
    write_result,
)
from planish.benchmark.page import table
from planish.errors import ConfigError, DataError, UnsupportedError


def at(value):
    return Measurement(median=value, p20=0.9 * value, p80=1.2 * value)


def test_measurement_percentiles():
    found = Measurement.of([5, 1, 4, 2, 3])
    assert (found.p20, found.median, found.p80) == (1.8, 3, 4.2)
    assert Measurement.of([7]) == Measurement(median=7, p20=7, p80=7)
    assert Measurement.of([1, 2]).median == 1.5


def test_gain_is_above_one_where_ours_is_better():
    assert Row.compare("c", at(2.0), {"them": at(3.0)}, against="them").gain == pytest.approx(1.5)
    higher = Row.compare("c", at(2.0), {"them": at(3.0)}, against="them", metric="rate", unit="/s", better="higher")
    assert higher.gain == pytest.approx(2 / 3)


def test_a_gain_names_a_peer_that_is_there():
    with pytest.raises(ValueError, match="none of the peers"):
        Row.compare("c", at(2.0), {"them": at(3.0)}, against="others")
    with pytest.raises(ValueError, match="say which peer"):
        Row(case="c", metric="time", unit="ms", better="lower", ours=at(1.0), gain=2.0)


def row():
    return Row.compare("sum|4096", at(2.0), {"them": at(3.0), "torch": at(4.0)}, against="them", target=1.25, floor=1.0)


def test_collect_fills_in_the_machine():
    result = collect("sums", [row()], oracle_passed=True, notes=["n"])
    assert result.command == "planish bench sums"
    assert result.hardware.cpu
    assert "torch" in result.versions
    assert result.created.endswith("Z")
    assert result.rows[0].gain == pytest.approx(1.5)


def test_no_gain_is_stated_where_the_oracle_failed():
    result = collect("sums", [row()], oracle_passed=False)
    assert result.rows[0].gain is None
    assert result.rows[0].ours == at(2.0)
    assert "no gain is stated" in page(result)
    values = result.model_dump()
    values["rows"][0]["gain"] = 1.5
    with pytest.raises(ValueError, match="a wrong result has no speed"):
        BenchmarkResult.model_validate(values)


def test_results_have_the_agreed_fields(tmp_path):
    path = tmp_path / "a" / "result.json"
    result = collect("sums", [row()], oracle_passed=True)
    write_result(result, path)
    values = json.loads(path.read_text())
    assert set(values) >= {"benchmark", "created", "commit", "hardware", "versions", "command", "oracle_passed", "rows"}
    assert set(values["hardware"]) >= {"gpu", "gpus", "cpu"}
    fields = {"case", "metric", "unit", "better", "ours", "peers", "floor", "gain", "against", "target"}
    assert set(values["rows"][0]) >= fields
    assert set(values["rows"][0]["ours"]) == {"median", "p20", "p80"}
    assert read_result(path) == result


def test_a_file_that_is_no_result(tmp_path):
    (tmp_path / "x.json").write_text('{"benchmark": "x"}')
    with pytest.raises(DataError, match="is no benchmark result: created: Field required"):
        read_result(tmp_path / "x.json")
    with pytest.raises(DataError, match="cannot read benchmark result"):
        read_result(tmp_path / "gone.json")


def test_the_page_and_the_table_show_every_number():
    result = collect("sums", [row()], oracle_passed=True, notes=["mind the gap"])
    text = page(result)
    assert "| `sum\\|4096` | time, ms (lower is better) | 2 [1.8, 2.4] | 3 [2.7, 3.6] | 4 [3.6, 4.8] | 1 |" in text
    assert "**1.50×** against them | 1.25× |" in text
    assert "- mind the gap" in text

    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=160).print(table(result))
    assert "1.50×" in out.getvalue()


def test_interleave_measures_what_sleeps():
    times = interleave({"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.004)}, rounds=5)
    assert 0.9 < times["short"].median < 3
    assert times["long"].median > 1.5 * times["short"].median
    assert times["long"].p20 <= times["long"].median <= times["long"].p80


def test_interleave_takes_turns_and_rotates():
    order = []
    interleave({name: lambda name=name: order.append(name) for name in "abc"}, rounds=3, warmup=0, shortest_ms=0.0)
    assert order[-9:] == list("abcbcacab")


def test_short_work_is_repeated_within_a_sample():
    calls = []
    times = interleave({"tiny": lambda: calls.append(None)}, rounds=2, warmup=0, shortest_ms=0.5)
    assert len(calls) > 100
    assert times["tiny"].median < 0.1


def test_interleave_refuses_what_it_cannot_do():
    with pytest.raises(UnsupportedError, match="need a CUDA device, not 'cpu'"):
        interleave({"a": lambda: None}, graph=True)
    with pytest.raises(ConfigError, match="rounds is 0"):
        interleave({"a": lambda: None}, rounds=0)


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("clear_cache", [False, True])
def test_interleave_on_a_gpu(graph, clear_cache):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    small, large = (torch.randn(n, n, device="cuda") for n in (256, 4096))
    times = interleave(
        {"small": lambda: small @ small, "large": lambda: large @ large},
        device="cuda",
        rounds=10,
        graph=graph,
        clear_cache=clear_cache,
    )
    assert times["large"].median > 3 * times["small"].median
