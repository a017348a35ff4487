"""Which kernels the time of a step goes into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_KINDS = (
    ("pack gradient", ("_mvue_kernel",)),
    ("pack weight", ("_pack_kernel",)),
    ("masked decay", ("decay",)),
    ("sparse matmul", ("sparse", "spmma", "sp_gemm", "cusparselt")),
    ("dense matmul", ("nvjet", "gemm", "cutlass", "xmma")),
    ("gradient accumulation", ("binaryfunctor", "cudafunctor_add", "multi_tensor_apply", "elementwise")),
    ("copies", ("memcpy", "memset", "copy")),
)


def kernel_shares(step: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of GPU time of one call of ``step`` (warmed up by another) by kind of kernel, largest first.

    What matches no kind, chiefly the compiled activations, is ``"activations and other"``.
    """
    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    shares: dict[str, float] = {}
    for event in profiled.key_averages():
        kind = _kind(event.key.lower())
        shares[kind] = shares.get(kind, 0.0) + event.self_device_time_total / 1e3
    return {kind: round(took, 4) for kind, took in sorted(shares.items(), key=lambda item: -item[1]) if took > 0}


def _kind(kernel: str) -> str:
    for kind, marks in _KINDS:
        if any(mark in kernel for mark in marks):
            return kind
    return "activations and other"
