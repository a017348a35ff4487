"""Choosing a backend: automatically, by name, by the environment; and saying why."""

import pickle
import warnings
from itertools import count

import pytest
from planish_kernels.runtime import op as op_module
from planish_kernels.runtime.op import FallbackWarning, KernelUnavailable, Op, load_ops, ops
from planish_kernels.runtime.support import YES, no

NUMBERS = count()


@pytest.fixture
def double(monkeypatch):
    """An operator with a fast path for even numbers, one that this machine lacks, and the reference."""
    monkeypatch.setattr(op_module, "_OPS", {})
    monkeypatch.delenv("PLANISH_BACKEND", raising=False)
    op = Op(f"double{next(NUMBERS)}", "twice a number")
    missing = no("no such chip here", worth_warning=True)
    op.implement("cuda", available=lambda: missing)(lambda x: pytest.fail("ran what is not available"))
    op.implement("cpu", supports=lambda x: YES if x % 2 == 0 else no(f"{x} is odd"))(lambda x: ("cpu", 2 * x))
    op.implement("reference")(lambda x: ("reference", 2 * x))
    return op


def test_auto_takes_the_first_that_can(double):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double.dispatch("auto", 4) == ("cpu", 8)
    assert double.chosen(4) == "cpu"


def test_auto_falls_back_and_warns_once_for_each_reason(double):
    with pytest.warns(FallbackWarning, match=r"cpu declined \(3 is odd\); running reference"):
        assert double.dispatch("auto", 3) == ("reference", 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        double.dispatch("auto", 3)
    with pytest.warns(FallbackWarning, match="5 is odd"):
        double.dispatch("auto", 5)


def test_what_the_machine_lacks_is_no_warning(double):
    # The cuda backend above declines by `available`, with a reason that would be worth a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        double.dispatch("auto", 2)


def test_a_named_backend_runs_or_raises(double):
    assert double.dispatch("reference", 4) == ("reference", 8)
    with pytest.raises(KernelUnavailable, match="no such chip here") as caught:
        double.dispatch("cuda", 4)
    assert (caught.value.op, caught.value.backend, caught.value.reason) == (double.name, "cuda", "no such chip here")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(KernelUnavailable, match="3 is odd"):
        double.dispatch("cpu", 3)
    with pytest.raises(KernelUnavailable, match="cuda, cpu, reference only"):
        double.dispatch("triton", 3)
    with pytest.raises(ValueError, match="names no backend"):
        double.dispatch("fpga", 3)


def test_the_environment_forces_a_backend(double, monkeypatch):
    monkeypatch.setenv("PLANISH_BACKEND", "reference")
    assert double.dispatch("auto", 4) == ("reference", 8)
    # What is not implemented for this operator leaves the reference.
    monkeypatch.setenv("PLANISH_BACKEND", "triton")
    assert double.dispatch("auto", 4) == ("reference", 8)
    monkeypatch.setenv("PLANISH_BACKEND", "cpu")
    with pytest.raises(KernelUnavailable):
        double.dispatch("auto", 3)
    # The caller's word outranks the environment's.
    assert double.dispatch("reference", 3) == ("reference", 6)
    monkeypatch.setenv("PLANISH_BACKEND", "gpu")
    with pytest.raises(ValueError, match="PLANISH_BACKEND='gpu'"):
        double.dispatch("auto", 4)


def test_explain_says_what_dispatch_does(double):
    assert [(row.backend, row.chosen, row.reason) for row in double.explain(3)] == [
        ("cuda", False, "no such chip here"),
        ("cpu", False, "3 is odd"),
        ("reference", True, "the first that can"),
    ]
    assert [row.chosen for row in double.explain(4)] == [False, True, False]
    assert [row.chosen for row in double.explain(4, impl="reference")] == [False, False, True]
    assert [row.chosen for row in double.explain(3, impl="cpu")] == [False, False, False]


def test_the_interpreter_runs_only_when_asked_for(double, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    op = Op("interpreted", "a Triton kernel")
    op.implement("triton")(lambda x: ("triton", x))
    op.implement("reference")(lambda x: ("reference", x))
    assert op.dispatch("auto", 1)[0] == "reference"
    assert op.dispatch("triton", 1)[0] == "triton"


def test_declaration_errors(double):
    with pytest.raises(ValueError, match="already registered"):
        Op(double.name, "again")
    with pytest.raises(ValueError, match="before the reference"):
        double.implement("triton")
    with pytest.raises(ValueError, match="is no backend"):
        Op("other", "x").implement("tpu")
    with pytest.raises(ValueError, match="takes no 'supports'"):
        Op("another", "x").implement("reference", supports=lambda x: YES)


def test_every_operator_of_the_package_has_a_reference_and_a_summary():
    load_ops()
    assert ops(), "no operator was found"
    for op in ops().values():
        assert op.backends[-1] == "reference", op
        assert op.summary
