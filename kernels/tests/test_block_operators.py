"""The benchmark of operators on scaled blocks as a program: it checks, times and writes; and says what is wrong."""

import dataclasses
import json

import pytest
import torch
from planish_kernels.benchmarks import block_operators, operators24
from planish_kernels.benchmarks.block_operators_cases import PLAIN, agrees, cases


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(operators24, "measured_bandwidth", lambda device: 1e7)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the shapes of a GPU are large")
def test_every_operator_is_checked_and_has_a_row(tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert block_operators.main(["--json", str(path), "--only", "block32", "--rounds", "2"]) == 0
    result = json.loads(path.read_text())
    assert result["benchmark"] == "block_operators"
    assert result["oracle_passed"]
    assert not result["notes"]
    expected = {case.name for case in cases(torch.device("cpu")) if "block32" in case.name}
    assert {row["case"] for row in result["rows"]} == expected
    for row in result["rows"]:
        assert row["floor"] <= row["extra"]["bytes"] / 1e7
        assert row["extra"]["share of a copy"] > 0
        if not row["case"].startswith("block_quantize"):
            assert row["against"] == PLAIN.name
            assert row["target"] == 1.3
            assert row["gain"] == row["peers"][PLAIN.name]["median"] / row["ours"]["median"]
    assert "gelu backward" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="the shapes of a GPU are large")
def test_a_wrong_operator_is_not_timed(tmp_path, monkeypatch):
    (case,) = [case for case in cases(torch.device("cpu")) if case.name == "gelu/256x1024/block128"]

    def broken(codes, scales, dense, impl="auto"):
        found = case.ours(codes, scales, dense)
        return (found[0] + (impl == "auto"), found[1])

    monkeypatch.setattr(block_operators, "cases", lambda device: [dataclasses.replace(case, ours=broken)])
    path = tmp_path / "rows.json"
    assert block_operators.main(["--json", str(path), "--rounds", "2"]) == 1
    result = json.loads(path.read_text())
    assert not result["rows"]
    assert result["notes"] == ["gelu/256x1024/block128: differs from the reference; not timed"]


def test_what_counts_as_agreement():
    codes, scales = torch.zeros(100, 100, dtype=torch.int8), torch.ones(4, 4)
    assert agrees((codes, scales), (codes, scales))
    few, many, far = (codes.clone() for _ in range(3))
    few[0, :20], many[0, :30], far[0, 0] = 1, 1, 2
    assert agrees((few, scales), (codes, scales))
    assert not agrees((many, scales), (codes, scales))
    assert not agrees((far, scales), (codes, scales))
    assert not agrees((codes, scales * 1.001), (codes, scales))
    assert not agrees((codes, scales.double()), (codes, scales))
    assert not agrees(scales * torch.nan, scales)


def test_launchers_take_what_a_sweep_gives_them(kernel_device):
    seen = set()
    for case in cases(torch.device("cpu")):
        kind = case.name.split("/")[0]
        if kind in seen or "block32" in case.name:
            continue
        seen.add(kind)
        # The interpreter cuts off where it should round to bfloat16.
        inputs = [t.float() if t.dtype is torch.bfloat16 else t for t in case.inputs(kernel_device)]
        swept = case.launcher(*inputs, across=1, num_warps=4)
        reference = case.ours(*inputs, impl="reference")
        assert agrees(tuple(swept), reference if isinstance(reference, tuple) else (reference,)), case.name
    assert len(seen) == 11


@pytest.mark.gpu
def test_tiles_can_be_swept_on_gpu(gpu):
    for name in ("gelu/", "RMSNorm backward/", "add with statistics/", "dropout/"):
        case = next(case for case in cases(gpu) if case.name.startswith(name) and "block128" in case.name)
        small = dataclasses.replace(case, tiles={"across": (1, 2), "num_warps": (4,)})
        notes: list[str] = []
        assert len(operators24.sweep(small, gpu, notes)) == 2, notes
