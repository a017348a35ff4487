"""What every kernel test shares: poisoned outputs, and the device that Triton kernels run on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch


def _poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``allocate``, but what ``planish_kernels`` asks it for starts as NaN (integers: 0xA5.., booleans: True)."""

    def allocate_poisoned(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if not caller.startswith("planish_kernels") or type(tensor) is not torch.Tensor or tensor.is_meta:
            return tensor
        if tensor.is_floating_point():
            return tensor.fill_(float("nan"))
        return tensor.fill_(True if tensor.dtype is torch.bool else 0x25)

    return allocate_poisoned


@pytest.fixture(autouse=True)
def poisoned_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel forgets to write shows up as NaN: ``torch.empty*`` is poisoned for the whole package."""
    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, _poisoned(getattr(torch, name)))


@pytest.fixture(params=[pytest.param("cpu", id="interpreter"), pytest.param("cuda", marks=pytest.mark.gpu, id="gpu")])
def kernel_device(request: pytest.FixtureRequest) -> torch.device:
    """Where Triton kernels run: under the interpreter on CPU tensors, and on the GPU where there is one."""
    pytest.importorskip("triton", reason="triton is not installed")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    if request.param == "cpu" and torch.cuda.is_available():
        pytest.skip("a GPU is here: the kernels are compiled for it, the interpreter is off in this process")
    return torch.device(request.param)


@pytest.fixture
def gpu() -> torch.device:
    """The CUDA device; skips where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    return torch.device("cuda")
