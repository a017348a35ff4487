"""Cheap, cached probes of this machine and process. None of them imports Triton or initialises CUDA needlessly.

The probes that take no tensor are constants of a process; ``torch.compile`` may fold them into its graphs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os

import torch

from planish_kernels.runtime.support import YES, Support, no

BACKENDS = ("reference", "triton", "cuda", "cpu", "cusparselt")

#: The backends of an operator or a matmul, named by what executes them.
FORCED_BACKEND_VARIABLE = "PLANISH_BACKEND"


def forced_backend() -> str | None:
    """The backend that ``PLANISH_BACKEND`` asks for, or None; read anew on each call.

    Raises:
        ValueError: the variable names no backend.
    """
    value = os.environ.get(FORCED_BACKEND_VARIABLE, "").strip().lower()
    if not value or value == "auto":
        return None
    if value not in BACKENDS:
        raise ValueError(
            f"{FORCED_BACKEND_VARIABLE}={value!r} names no backend: set it to one of {', '.join(BACKENDS)}, or unset it"
        )
    return value


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter (``TRITON_INTERPRET=1``) in this process."""
    return os.environ.get("TRITON_INTERPRET", "0").strip().lower() in {"1", "true", "on", "yes"}


@functools.cache
def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


@functools.cache
def _cuda_available() -> bool:
    return torch.cuda.is_available()


def cuda_available() -> Support:
    """Whether torch sees a CUDA GPU."""
    if _cuda_available():
        return YES
    why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA GPU"
    return no(why, worth_warning=False)


def triton_available() -> Support:
    """Whether Triton kernels can run in this process: Triton is installed, and there is a GPU or the interpreter."""
    if not _importable("triton"):
        return no("triton is not installed (pip install triton)", worth_warning=False)
    if interpreting():
        return YES
    gpu = cuda_available()
    return YES if gpu else no(f"{gpu.reason}, and TRITON_INTERPRET=1 is not set", worth_warning=False)


def triton_runs_on(device: torch.device) -> Support:
    """Whether Triton kernels run on tensors of ``device``: CUDA, or any device under the interpreter."""
    if device.type == "cuda" or interpreting():
        return YES
    return no(f"Triton runs on CUDA tensors, this one is on {device.type}", worth_warning=False)


@functools.cache
def _capability_of(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def cuda_capability(device: torch.device | int | None = None) -> tuple[int, int] | None:
    """Compute capability ``(major, minor)`` of a CUDA device (default: the current one); None where it is not CUDA."""
    if isinstance(device, torch.device) and device.type != "cuda":
        return None
    if not _cuda_available():
        return None
    index = device.index if isinstance(device, torch.device) else device
    return _capability_of(torch.cuda.current_device() if index is None else index)


@functools.cache
def cusparselt_available() -> Support:
    """Whether torch can call cuSPARSELt here (built with it, a GPU of compute capability 8.0 or newer)."""
    gpu = cuda_available()
    if not gpu:
        return gpu
    cusparselt = getattr(torch.backends, "cusparselt", None)
    if cusparselt is None or not cusparselt.is_available():
        return no("this torch is built without cuSPARSELt", worth_warning=False)
    capability = cuda_capability()
    if capability is None or capability < (8, 0):
        return no(f"cuSPARSELt needs compute capability 8.0, this GPU has {capability}", worth_warning=False)
    return YES


@functools.cache
def nvrtc_available() -> Support:
    """Whether CUDA C++ can be compiled and launched at run time: ``cuda.core``, NVRTC and a GPU."""
    gpu = cuda_available()
    if not gpu:
        return gpu
    return nvrtc_importable()


@functools.cache
def nvrtc_importable() -> Support:
    """Whether CUDA C++ can be *compiled* at run time (``cuda.core`` and NVRTC are installed); needs no GPU."""
    install = "pip install 'planish-kernels[cuda]'"
    if not _importable("cuda"):
        return no(f"cuda-core and cuda-bindings are not installed ({install})", worth_warning=False)
    for module, distribution in (("cuda.bindings", "cuda-bindings"), ("cuda.core", "cuda-core")):
        if not _importable(module):
            return no(f"{distribution} is not installed ({install})", worth_warning=False)
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        status, *_ = nvrtc.nvrtcVersion()
    except Exception as error:
        return no(f"NVRTC does not load: {error}", worth_warning=False)
    return YES if int(status) == 0 else no(f"NVRTC does not answer: {status}", worth_warning=False)
