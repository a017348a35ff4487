"""Timing of memory-bound operators: CUDA graphs over rotating buffers that the L2 cannot hold, interleaved rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Call = Callable[[], Any]

#: Buffers are rotated over at least this much memory; the largest L2 today has 126 MB.
ROTATED_BYTES = 400_000_000


class GraphedCalls:
    """Several calls (one on each set of buffers) as one CUDA graph; on a CPU, or without it, the calls themselves."""

    def __init__(self, calls: Sequence[Call], *, graph: bool = True) -> None:
        self._calls = calls
        self._graph: torch.cuda.CUDAGraph | None = None
        if graph and torch.cuda.is_available():
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # compiles, and allocates what a first call allocates
                for _ in range(3):
                    calls[0]()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                for call in calls:
                    call()

    def milliseconds(self, replays: int) -> float:
        """Mean time of one call over ``replays`` passes through all buffers."""
        count = replays * len(self._calls)
        if not torch.cuda.is_available():
            start = time.perf_counter()
            for _ in range(replays):
                for call in self._calls:
                    call()
            return (time.perf_counter() - start) * 1e3 / count
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(replays):
            if self._graph is not None:
                self._graph.replay()
                continue
            for call in self._calls:
                call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / count


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median, 20th and 80th percentile."""
    cuts = statistics.quantiles(samples, n=5, method="inclusive")
    return {"median": statistics.median(samples), "p20": cuts[0], "p80": cuts[3]}


def interleave(variants: dict[str, GraphedCalls], rounds: int) -> dict[str, dict[str, float]]:
    """Time the variants in turns, so that a drift of the clocks meets all of them; milliseconds a call."""
    replays = {name: max(1, round(5.0 / max(calls.milliseconds(1), 1e-3) / 4)) for name, calls in variants.items()}
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, calls in variants.items():
            samples[name].append(calls.milliseconds(min(replays[name], 20)))
    return {name: spread(times) for name, times in samples.items()}
