"""What the core asks of a machine: the core's part of ``planish doctor``."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from planish.environment import cores, processor


def machine() -> Iterator[dict[str, Any]]:
    """Yield findings on Python, torch, devices, memory, disk, and the packages that reports need."""
    yield _finding("python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or later")
    yield _finding("processor", True, f"{processor()}, {cores()} cores")
    yield from _torch()
    for package, what in (("jinja2", "the report's page"), ("matplotlib", "the report's charts")):
        yield _package(package, what, "planish[report]")
    yield _package("pytest", "the contract suites of planish.testing", "planish[testing]")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield _finding("disk", free > 1, f"{free:.1f} GiB free in {Path.cwd()}", "free space before a run")


def _torch() -> Iterator[dict[str, Any]]:
    try:
        import torch
    except Exception as error:
        yield _finding("torch", False, f"{type(error).__name__}: {error}", "pip install 'torch>=2.11,<2.14'")
        return
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    yield _finding("torch", (2, 11) <= release < (2, 14), torch.__version__, "pip install 'torch>=2.11,<2.14'")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            size = found.total_memory / 2**30
            detail = f"{found.name}, {size:.0f} GiB, capability {found.major}.{found.minor}"
            yield _finding(f"cuda:{index}", True, detail)
    elif torch.version.cuda is None:
        fix = "on a machine with an NVIDIA GPU, install torch with CUDA: https://pytorch.org/get-started"
        yield _finding("cuda", False, "this torch is built without CUDA: training and kernels run on the CPU", fix)
    else:
        fix = "check nvidia-smi and CUDA_VISIBLE_DEVICES"
        yield _finding("cuda", False, f"torch has CUDA {torch.version.cuda} but finds no GPU", fix)
    if torch.backends.mps.is_available():
        yield _finding("mps", True, "Apple GPU: torch's own operators only")


def _package(name: str, what: str, extra: str) -> dict[str, Any]:
    try:
        return _finding(name, True, f"{version(name)}, for {what}")
    except PackageNotFoundError:
        return _finding(name, False, f"not installed; {what} needs it", f"pip install '{extra}'")


def _finding(name: str, ok: bool, detail: str, fix: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "fix": fix}
