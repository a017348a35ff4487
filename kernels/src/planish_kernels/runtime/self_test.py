"""Self-tests: a fast path proves itself on the real device, once per process, before it is first used.

Some kernels fail silently: a sparse matmul reads metadata in a layout that this GPU does not use, and returns numbers.
Such a path registers a small test against its reference, and asks ``passes(name, device)`` in its ``supports``.
A test that fails disables the path with one warning that names the relative error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes

from planish_kernels.runtime.support import YES, Support, no
from planish_kernels.runtime.tracing import constant_while_tracing


@dataclass(frozen=True)
class SelfTest:
    """A named test of one fast path.

    ``run(device)`` returns the relative error of the path against its reference (for example the Frobenius norm of
    the difference over that of the reference); it must use its own ``torch.Generator`` or fixed data.
    """

    name: str
    guards: str
    tolerance: float
    run: Callable[[torch.device], float]
    available: Callable[[], Support]


class SelfTestResult(NamedTuple):
    """The outcome on one device. ``error`` is the relative error, NaN where the test raised (``detail`` says what)."""

    name: str
    device: str
    ok: bool
    error: float
    tolerance: float
    detail: str


class SelfTestWarning(UserWarning):
    """A self-test failed: the path that it guards is off in this process."""


_CAPTURING = "a CUDA graph capture cannot"

_TESTS: dict[str, SelfTest] = {}
_RESULTS: dict[tuple[str, str], SelfTestResult] = {}


def _anywhere() -> Support:
    return YES


def register_self_test(
    name: str, *, guards: str, tolerance: float, available: Callable[[], Support] = _anywhere
) -> Callable[[Callable[[torch.device], float]], Callable[[torch.device], float]]:
    """Decorate a function ``run(device) -> relative error`` as the self-test ``name``.

    Args:
        name: unique; by convention the kernel's name.
        guards: what is switched off on failure, in words for the warning ("the cuSPARSELt matmul").
        tolerance: the largest relative error that passes; NaN never passes.
        available: whether the test can run in this process at all.

    Raises:
        ValueError: the name is taken.
    """
    if name in _TESTS:
        raise ValueError(f"self-test {name!r} is registered already (it guards {_TESTS[name].guards})")

    def register(run: Callable[[torch.device], float]) -> Callable[[torch.device], float]:
        _TESTS[name] = SelfTest(name, guards, tolerance, run, available)
        return run

    return register


def self_tests() -> Mapping[str, SelfTest]:
    """Every registered self-test by name."""
    return MappingProxyType(_TESTS)


def self_test_results() -> list[SelfTestResult]:
    """What ran in this process so far."""
    return list(_RESULTS.values())


def device_name(device: torch.device) -> str:
    """The device with its index: the current one where ``device`` is just ``cuda``."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


def run_self_test(name: str, device: torch.device) -> SelfTestResult:
    """Run a self-test now and remember its result, replacing an earlier one. Never raises for a failing test.

    Raises:
        KeyError: no self-test has this name.
    """
    test = _TESTS[name]
    where = device_name(device)
    try:
        # The test computes real numbers, whatever is being traced, autocast or differentiated around it.
        with (
            _disable_current_modes(),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
            torch.random.fork_rng(devices=[where] if device.type == "cuda" else []),
        ):
            error = float(test.run(torch.device(where)))
        detail = "" if error <= test.tolerance else f"relative error {error:.3g} exceeds {test.tolerance:.3g}"
    except Exception as failure:
        error, detail = float("nan"), f"{type(failure).__name__}: {failure}"
    result = SelfTestResult(name, where, not detail, error, test.tolerance, detail)
    _RESULTS[name, where] = result
    if not result.ok:
        message = f"self-test {name!r} failed on {where}: {detail}. {test.guards} is off in this process"
        warnings.warn(message, SelfTestWarning, stacklevel=3)
    return result


def passes(name: str, device: torch.device) -> Support:
    """Whether the path that self-test ``name`` guards may be used on ``device``. Runs the test on the first question.

    The first question must not fall into a CUDA graph capture, in which nothing can be computed: warm up before
    capturing (as CUDA graphs ask for anyway), or call ``run_self_tests`` at start-up.
    """
    refusal = _refusal(name, device)
    # A failure has been warned about by its own warning, once.
    return no(refusal, worth_warning=refusal.startswith(_CAPTURING)) if refusal else YES


@constant_while_tracing
def _refusal(name: str, device: torch.device) -> str:
    """Why not, or an empty string. Dynamo takes a string as a constant; a tuple's guards fail in torch 2.11."""
    result = _RESULTS.get((name, device_name(device)))
    if result is None:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return f"{_CAPTURING} run self-test {name!r}: run the model once before capturing"
        result = run_self_test(name, device)
    return "" if result.ok else f"self-test failed: {result.detail}"


def run_self_tests(device: torch.device) -> list[SelfTestResult]:
    """Run every self-test that is available and has not run yet on ``device``; return all their results."""
    where = device_name(device)
    for name, test in _TESTS.items():
        if (name, where) not in _RESULTS and test.available():
            run_self_test(name, device)
    return [result for result in _RESULTS.values() if result.device == where]
