"""The speed benchmark on a CPU: every section runs, and says nothing that a CPU cannot know."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from planish.benchmark import BenchmarkOptions, Measurement, Row, read_result
from planish_jetfire.benchmark import jetfire_speed, matmul_rows, sparse_int8_ffn, speed_oracle
from planish_kernels.benchmarks.block_matmul_tiles import SHARED_BYTES, candidates
from planish_kernels.formats import BlockInt8
from planish_kernels.matmul import row_int8_cpu

needs_models = pytest.mark.skipif(find_spec("planish_lightning") is None, reason="it builds models by name")


@needs_models
def test_every_section_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speed.json"
    assert jetfire_speed.main(["--device", "cpu", "--json", str(path)]) == 0
    result = read_result(path)
    assert result.oracle_passed
    sections = {row.case.split("/")[0] for row in result.rows}
    assert sections == {"matmul", "layouts", "block", "int8_sparse_ffn", "operators"}
    assert not [note for note in result.notes if note.startswith("section")], "none failed"
    for row in result.rows:
        if row.metric == "time":
            assert row.gain is None, "a CPU says nothing about speed"
    saved = [row for row in result.rows if row.metric == "saved activations"]
    assert {row.case for row in saved} == {
        f"block/{family}/h128/tokens128/{preset}"
        for family in ("llama", "gpt2")
        for preset in ("float8 of 128", "int8 of 128", "int8 of 32")
    }
    for row in saved:
        assert row.gain is not None
        assert row.gain >= 1.49, "INT8 is what is saved for backward"


def test_the_oracle_holds_and_sees_a_wrong_product(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert list(speed_oracle.oracle_failures(device)) == []
    right = speed_oracle.block_matmul
    monkeypatch.setattr(speed_oracle, "block_matmul", lambda a, b, **how: right(a, b, **how) * 1.02)
    failures = list(speed_oracle.oracle_failures(device))
    assert failures[0].startswith("product of BlockInt8, block 32, NN to torch.float32: relative error 0.02")
    assert len(failures) == 2 * 3 * 4 * 2


def test_a_failed_oracle_takes_the_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetfire_speed, "oracle_failures", lambda device: ["the product is wrong"])
    lines: list[str] = []
    result = jetfire_speed.run(jetfire_speed.ON_CPU, device="cpu", command="x", only=["matmul"], say=lines.append)
    assert not result.oracle_passed
    assert result.notes[0] == "the product is wrong"
    assert lines[0] == "oracle: the product is wrong"
    assert all(row.gain is None for row in result.rows)


def test_one_section_does_not_take_the_others_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*shape: int, **how: object) -> None:
        raise RuntimeError("out of registers")

    monkeypatch.setattr(jetfire_speed, "matmul_rows", broken)
    result = jetfire_speed.run(jetfire_speed.ON_CPU, device="cpu", command="x", only=["matmul"], say=lambda line: None)
    assert result.notes[0] == "section matmul: RuntimeError: out of registers"
    assert {row.case.split("/")[0] for row in result.rows} == {"layouts"}


def test_a_run_can_be_cut_into_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "speed.json"

    def cases(only: str) -> list[str]:
        result = jetfire_speed.run(
            jetfire_speed.ON_CPU, device="cpu", command="x", only=[only], path=path, say=lambda line: None
        )
        return [row.case for row in result.rows]

    sparse = cases("sparse")
    both = cases("matmul")
    assert both[: len(sparse)] == sparse
    assert sorted(cases("sparse")) == sorted(both), "measured again, not doubled"
    older = read_result(path).model_copy(update={"commit": "0" * 40})
    path.write_text(older.model_dump_json())
    assert cases("sparse") == sparse, "rows of another commit are not kept"


def test_missed_targets_are_said_with_the_share_of_the_roofline() -> None:
    row = Row.compare("a", Measurement.of([4.0]), {"b": Measurement.of([4.4])}, against="b", target=1.25, floor=1.0)
    assert list(jetfire_speed._shortfalls([row])) == ["a: time 1.10x of 1.25x asked for, 25 % of its roofline"]


def test_the_sparse_network_is_right_and_its_oracle_sees_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(sparse_int8_ffn.failures("cpu")) == []
    right = row_int8_cpu.exact_sums
    monkeypatch.setattr(row_int8_cpu, "exact_sums", lambda *codes: right(*codes).flip(0))
    assert len(list(sparse_int8_ffn.failures("cpu"))) == 2 * 4


def test_the_sparse_network_estimates_weight_gradients_without_bias() -> None:
    x, grad, weights = sparse_int8_ffn._inputs(64, 64, "cpu")
    exact, drawn = (
        sparse_int8_ffn.SparseStep(weights, kind, x, grad).step()
        for kind in ("dense weight gradient", "estimated weight gradient")
    )
    for dense, sparse in zip(exact[:2], drawn[:2], strict=True):
        assert torch.equal(dense, sparse)
    for dense, sparse in zip(exact[2:], drawn[2:], strict=True):
        cosine = torch.nn.functional.cosine_similarity(dense.float().flatten(), sparse.float().flatten(), 0)
        assert 0.5 < cosine < 0.99, "drawn, and of the same direction"


def test_the_sparse_network_compiles_whole() -> None:
    x, grad, weights = sparse_int8_ffn._inputs(64, 64, "cpu")
    for kind in sparse_int8_ffn.WEIGHT_GRADIENTS:
        torch._dynamo.reset()
        step = sparse_int8_ffn.SparseStep(weights, kind, x, grad)
        eager = step.step()
        step.run = torch.compile(step.net, fullgraph=True, backend="aot_eager")
        for state in (module for module in step.net.modules() if hasattr(module, "draws")):
            state.draws.zero_()
        compiled = step.step()
        for ours, theirs in zip(compiled[:2], eager[:2], strict=True):
            torch.testing.assert_close(ours, theirs)


def test_turned_operands_give_the_same_product() -> None:
    operand = BlockInt8.encode(torch.randn(64, 96), 32)
    turned = matmul_rows._turned(operand)
    assert torch.equal(turned.decode(), operand.decode().t())
    assert turned.codes.is_contiguous()


@pytest.mark.parametrize("block", [32, 64, 128])
def test_tiles_to_try_hold_whole_blocks_and_fit(block: int) -> None:
    tiles = list(candidates(block))
    assert len(tiles) >= 4
    for tile in tiles:
        assert tile.rows % block == tile.cols % block == 0
        assert tile.stages * (tile.rows + tile.cols) * block <= SHARED_BYTES


def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert jetfire_speed.main(["--device", "cpu", "--only", "matmuls"]) == 2
    assert capsys.readouterr().err.startswith("error: section 'matmuls' is unknown")
    assert jetfire_speed.main(["--device", "cpu", "--sweep"]) == 2
    assert "is no GPU" in capsys.readouterr().err


@pytest.mark.gpu
def test_quick_run() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    result = jetfire_speed.bench(BenchmarkOptions(device="cuda", quick=True))
    assert result.oracle_passed
    assert not [note for note in result.notes if note.startswith("section")]
