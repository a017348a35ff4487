"""``planish kernels`` and what ``planish doctor`` says about kernels, as functions."""

import json
import subprocess
import sys

import pytest
import torch
import typer
from planish_kernels import cli, diagnostics, plugin
from planish_kernels.runtime import self_test
from planish_kernels.runtime.self_test import SelfTestWarning, register_self_test
from typer.testing import CliRunner

APP = typer.Typer()
APP.command()(cli.kernels)


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    monkeypatch.setattr(self_test, "_TESTS", dict(self_test._TESTS))
    monkeypatch.setattr(self_test, "_RESULTS", {})
    monkeypatch.setenv("PLANISH_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("PLANISH_BACKEND", raising=False)


def listing(*arguments):
    result = CliRunner().invoke(APP, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_json_lists_every_operator_kernel_and_self_test():
    register_self_test("always right", guards="nothing", tolerance=1e-2)(lambda device: 1e-3)
    shown = listing()
    assert {"transposable_mask", "mvue24", "masked_decay"} <= {op["name"] for op in shown["ops"]}
    for op in shown["ops"]:
        assert op["backends"][-1] == {"backend": "reference", "available": True, "reason": ""}
        for backend in op["backends"]:
            assert backend["available"] or backend["reason"], (op["name"], backend)
    assert shown["matmul"][-1]["kernel"] == "decode and multiply"
    (row,) = [row for row in shown["self_tests"] if row["name"] == "always right"]
    assert row["ok"]
    assert row["relative_error"] == 1e-3


def test_a_failed_self_test_is_valid_json_and_says_why():
    def broken(device):
        raise RuntimeError("no such instruction")

    register_self_test("broken", guards="a path", tolerance=1e-2)(broken)
    with pytest.warns(SelfTestWarning, match="no such instruction"):
        shown = listing()
    (row,) = [row for row in shown["self_tests"] if row["name"] == "broken"]
    assert row["ok"] is False
    assert row["relative_error"] is None
    assert "no such instruction" in row["detail"]


def test_one_operator_alone():
    shown = listing("--op", "mvue24")
    assert [op["name"] for op in shown["ops"]] == ["mvue24"]
    assert shown["matmul"] == shown["self_tests"] == []
    shown = listing("--op", "matmul")
    assert shown["ops"] == []
    assert shown["matmul"]


def test_the_table_names_each_backend_with_its_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    result = CliRunner().invoke(APP, [])
    assert result.exit_code == 0
    assert "decode and multiply" in result.stdout
    assert "any @ any" in result.stdout
    if not torch.cuda.is_available():
        assert "torch" in next(line for line in result.stdout.splitlines() if "triton" in line)


def test_an_unknown_operator_gets_the_nearest_name():
    result = CliRunner().invoke(APP, ["--op", "mvue42"])
    assert result.exit_code == 2
    assert "'mvue24'" in result.output


def test_every_finding_is_whole_and_a_problem_has_a_way_out(monkeypatch):
    findings = diagnostics.checks()
    assert {"GPU", "Triton kernels", "kernel cache", "PLANISH_BACKEND"} <= {row["name"] for row in findings}
    for row in findings:
        assert row["detail"], row
        assert row["ok"] or row["fix"], row
    monkeypatch.setenv("PLANISH_BACKEND", "abacus")
    (row,) = [row for row in diagnostics.checks() if row["name"] == "PLANISH_BACKEND"]
    assert not row["ok"]
    assert "abacus" in row["detail"]


def test_the_hooks_point_at_what_exists_and_cost_no_import_of_torch():
    targets = []
    plugin.planish_register_commands(lambda name, target, summary: targets.append(target))
    plugin.planish_register_diagnostics(lambda name, target, summary: targets.append(target))
    assert targets == ["planish_kernels.cli:kernels", "planish_kernels.diagnostics:checks"]
    assert callable(cli.kernels)
    assert callable(diagnostics.checks)
    code = "import sys, planish_kernels.plugin; sys.exit('torch' in sys.modules or 'planish' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_operator_imports_triton_before_a_kernel_runs():
    code = (
        "import sys\n"
        "from planish_kernels.runtime.op import load_ops\n"
        "load_ops()\n"
        "import planish_kernels.nn, planish_kernels.matmul\n"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
