"""The rate at which memory can be copied: what bounds an operator that reads and writes every byte once.

No single way of copying is the fastest for every size. A copy node of a CUDA graph is one of the slowest for hundreds
of megabytes, since it may run on a copy engine; so a copy is also an elementwise kernel, and is also launched alone.
"""

from __future__ import annotations

import functools

import torch

from planish_kernels.benchmarks.stream_timing import Call, GraphedCalls

_LARGE = {"cuda": 1 << 30, "cpu": 1 << 27}


def _calls(traffic: int, buffers: int, device: torch.device) -> dict[str, list[Call]]:
    """Ways to read ``traffic / 2`` bytes and write as many, each rotating over ``buffers`` pairs of buffers."""
    sources = [torch.zeros(max(1, traffic // 8), dtype=torch.int32, device=device) for _ in range(buffers)]
    pairs = [(source, torch.empty_like(source)) for source in sources]
    return {
        "copy_": [functools.partial(target.copy_, source) for source, target in pairs],
        "elementwise kernel": [functools.partial(torch.bitwise_not, source, out=target) for source, target in pairs],
    }


def copies_of(traffic: int, buffers: int, device: torch.device) -> dict[str, GraphedCalls]:
    """Copies that move ``traffic`` bytes in all, by name; see ``_calls``."""
    return {name: GraphedCalls(calls) for name, calls in _calls(traffic, buffers, device).items()}


def measured_bandwidth(device: torch.device) -> float:
    """The best rate of copies of large buffers, in bytes (read and written) a millisecond."""
    traffic = _LARGE["cuda" if device.type == "cuda" else "cpu"]
    best = float("inf")
    for calls in _calls(traffic, 2, device).values():
        for graph in (True, False):
            timed = GraphedCalls(calls, graph=graph)
            timed.milliseconds(2)
            best = min(best, *(timed.milliseconds(5) for _ in range(5)))
    return traffic / best
