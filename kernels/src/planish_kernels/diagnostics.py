"""What this machine can run: the findings of ``planish doctor`` about kernels."""

from __future__ import annotations

import importlib
from typing import TypedDict

import torch

from planish_kernels.runtime.capability import (
    cuda_available,
    cuda_capability,
    cusparselt_available,
    forced_backend,
    nvrtc_available,
    nvrtc_importable,
    triton_available,
)
from planish_kernels.runtime.disk_cache import CACHE_DIR_VARIABLE, cache_dir, read_cached, write_cached
from planish_kernels.runtime.op import load_ops
from planish_kernels.runtime.self_test import run_self_tests


class Finding(TypedDict):
    """One line of the diagnosis: what, whether it is fine, what was found, and how to mend it."""

    name: str
    ok: bool
    detail: str
    fix: str


def finding(name: str, ok: bool, detail: str, fix: str = "") -> Finding:
    """A finding; the fix is dropped where nothing is wrong."""
    return Finding(name=name, ok=ok, detail=detail, fix="" if ok else fix)


def checks() -> list[Finding]:
    """GPU, Triton, cuSPARSELt, NVRTC, cache, forced backend, and every self-test that can run here (it is run)."""
    return [_gpu(), _triton(), _cusparselt(), _nvrtc(), _cache(), _forced(), *_self_tests()]


def _gpu() -> Finding:
    gpu = cuda_available()
    if not gpu:
        fix = "everything runs on the reference backend; for speed use a machine with a CUDA GPU and a CUDA torch"
        return finding("GPU", False, gpu.reason, fix)
    major, minor = cuda_capability() or (0, 0)
    return finding("GPU", True, f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}")


def _triton() -> Finding:
    triton = triton_available()
    return finding("Triton kernels", triton.ok, triton.reason or "run on this machine", "pip install triton, on a GPU")


def _cusparselt() -> Finding:
    support = cusparselt_available()
    if not support:
        return finding(
            "cuSPARSELt (2:4 matmul)", False, support.reason, "a CUDA build of torch on an Ampere GPU or newer"
        )
    return finding("cuSPARSELt (2:4 matmul)", True, f"version {torch.backends.cusparselt.version()}")


def _nvrtc() -> Finding:
    support = nvrtc_available()
    fix = "pip install 'planish-kernels[cuda]'" if not nvrtc_importable() else "a machine with a CUDA GPU"
    return finding("NVRTC (CUDA C++ at run time)", support.ok, support.reason or "compiles on this machine", fix)


def _cache() -> Finding:
    folder = cache_dir("doctor")
    probe = folder / "probe"
    stored = write_cached(probe, b"planish") and read_cached(probe) == b"planish"
    return finding(
        "kernel cache", stored, str(folder.parent), f"set {CACHE_DIR_VARIABLE} to a folder that can be written"
    )


def _forced() -> Finding:
    try:
        forced = forced_backend()
    except ValueError as error:
        return finding("PLANISH_BACKEND", False, str(error), "unset PLANISH_BACKEND")
    return finding("PLANISH_BACKEND", True, f"{forced} is forced on every operator" if forced else "not set: automatic")


def _self_tests() -> list[Finding]:
    if not cuda_available():
        return []
    load_ops()
    importlib.import_module("planish_kernels.matmul")
    return [
        finding(
            f"self-test {result.name}",
            result.ok,
            result.detail or f"relative error {result.error:.2g} on {result.device}",
            "the path is off; report the versions of torch and the driver",
        )
        for result in run_self_tests(torch.device("cuda"))
    ]
