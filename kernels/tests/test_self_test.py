"""A fast path proves itself once, and is switched off where it fails."""

import math
import warnings

import pytest
import torch
from planish_kernels.runtime import self_test
from planish_kernels.runtime.self_test import (
    SelfTestWarning,
    passes,
    register_self_test,
    run_self_tests,
    self_test_results,
)
from planish_kernels.runtime.support import no

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(self_test, "_TESTS", {})
    monkeypatch.setattr(self_test, "_RESULTS", {})


def register(name, run, tolerance=1e-2, **options):
    register_self_test(name, guards=f"the path of {name}", tolerance=tolerance, **options)(run)


def test_a_passing_test_runs_once():
    runs = []
    register("good", lambda device: runs.append(device) or 1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert passes("good", CPU)
        assert passes("good", CPU)
    assert len(runs) == 1
    (result,) = self_test_results()
    assert result.ok
    assert result.error == 1e-3


@pytest.mark.parametrize("error", [0.5, math.nan, math.inf])
def test_a_failing_test_switches_the_path_off_with_one_warning(error):
    register("bad", lambda device: error)
    with pytest.warns(SelfTestWarning, match=r"relative error (0\.5|nan|inf) exceeds 0\.01.*the path of bad is off"):
        assert not passes("bad", CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "self-test failed" in passes("bad", CPU).reason


def test_a_test_that_raises_fails_with_its_message():
    def broken(device):
        raise RuntimeError("driver says no")

    register("broken", broken)
    with pytest.warns(SelfTestWarning, match="RuntimeError: driver says no"):
        assert not passes("broken", CPU)
    assert math.isnan(self_test_results()[0].error)


def test_the_test_sees_neither_autocast_nor_autograd_and_leaves_the_generator_alone():
    def probe(device):
        torch.rand(3)
        product = torch.eye(4, requires_grad=True) @ torch.eye(4)
        return 0.0 if product.dtype is torch.float32 and not product.requires_grad else 1.0

    register("probe", probe)
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert passes("probe", CPU)
    assert torch.equal(torch.rand(2), expected)


def test_a_path_may_be_asked_about_while_compiling():
    register("traced", lambda device: float(torch.ones(3).sum()) - 3)

    def double_where_allowed(x):
        return x * 2 if passes("traced", CPU) else x * 3

    compiled = torch.compile(double_where_allowed, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))


def test_run_all_skips_what_is_not_available():
    register("here", lambda device: 0.0)
    register("elsewhere", lambda device: 0.0, available=lambda: no("no such chip"))
    assert [result.name for result in run_self_tests(CPU)] == ["here"]


def test_names_are_unique():
    register("one", lambda device: 0.0)
    with pytest.raises(ValueError, match="registered already"):
        register("one", lambda device: 0.0)


@pytest.mark.gpu
def test_no_test_runs_inside_a_capture(gpu):
    runs = []
    register("captured", lambda device: runs.append(device) or 0.0)
    graph = torch.cuda.CUDAGraph()
    answers = []
    x = torch.zeros(3, device=gpu)
    with torch.cuda.graph(graph):
        x += 1
        answers.append(passes("captured", gpu))
    assert not answers[0]
    assert not runs
    assert passes("captured", gpu)
