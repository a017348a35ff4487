"""Timing several ways of doing one thing side by side."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from planish.benchmark.schema import Measurement
from planish.errors import ConfigError, UnsupportedError


@dataclass(frozen=True)
class BenchmarkOptions:
    """How a benchmark is to be run.

    Attributes:
        device: Device to measure on, such as ``"cuda"`` or ``"cpu"``.
        quick: Whether small sizes and few rounds will do: to see that it works, not to quote.
        command: What the user typed; kept in the result.
    """

    device: str = "cpu"
    quick: bool = False
    command: str = ""


def interleave(
    work: Mapping[str, Callable[[], Any]],
    *,
    device: str = "cpu",
    rounds: int = 30,
    warmup: int = 3,
    graph: bool = False,
    clear_cache: bool = False,
    shortest_ms: float = 1.0,
) -> dict[str, Measurement]:
    """Time functions in turn, so that clocks and neighbours disturb all of them alike.

    Each round runs every function once, beginning with another one each time. On a GPU a sample is taken with CUDA
    events; on a CPU with ``perf_counter``. A sample spans as many calls as last ``shortest_ms``.

    Args:
        work: Name -> function without arguments.
        device: ``"cpu"``, or a CUDA device.
        rounds: Samples of each function.
        warmup: Calls of each function before the first sample (before capture, where ``graph`` is set).
        graph: Whether to capture each function in a CUDA graph and time its replay.
        clear_cache: Whether to overwrite the GPU's L2 cache before each sample, which then spans one call.
        shortest_ms: Least time of a sample, in milliseconds.

    Returns:
        Name -> milliseconds a call.

    Raises:
        ConfigError: ``rounds`` is below 1.
        UnsupportedError: CUDA graphs or cache clearing are asked for where there is no CUDA.
    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; expected at least 1")
    on_gpu = device.startswith("cuda")
    if not on_gpu and (graph or clear_cache):
        raise UnsupportedError(f"CUDA graphs and L2 clearing need a CUDA device, not {device!r}")
    calls = dict(work)
    if graph:
        calls = {name: _captured(function, device, warmup) for name, function in calls.items()}
    else:
        for function in calls.values():
            for _ in range(warmup):
                function()
    sample = _cuda_sampler(device, clear_cache) if on_gpu else _cpu_sample
    repeats = {name: 1 if clear_cache else _repeats(function, sample, shortest_ms) for name, function in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                samples[name].append(sample(calls[name], repeats[name]) / repeats[name])
    finally:
        if collecting:
            gc.enable()
    return {name: Measurement.of(values) for name, values in samples.items()}


Sampler = Callable[[Callable[[], Any], int], float]
"""``sampler(function, calls)``: milliseconds that so many calls take."""


def _repeats(function: Callable[[], Any], sample: Sampler, shortest_ms: float) -> int:
    count = 1
    while count < 1_000_000:
        took = sample(function, count)
        if took >= shortest_ms:
            return count
        count = max(count + 1, min(100 * count, int(1.2 * count * shortest_ms / max(took, 1e-6))))
    return count


def _cpu_sample(function: Callable[[], Any], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return 1e3 * (time.perf_counter() - begin)


def _cuda_sampler(device: str, clear_cache: bool) -> Sampler:
    import torch

    cuda: Any = torch.cuda
    size = 2 * torch.cuda.get_device_properties(device).L2_cache_size if clear_cache else 0
    spoiler = torch.empty(size, dtype=torch.uint8, device=device)

    def sample(function: Callable[[], Any], calls: int) -> float:
        begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        with torch.cuda.device(device):
            spoiler.zero_()
            begin.record()
            for _ in range(calls):
                function()
            end.record()
            end.synchronize()
        return float(begin.elapsed_time(end))

    return sample


def _captured(function: Callable[[], Any], device: str, warmup: int) -> Callable[[], Any]:
    """The function as the replay of a CUDA graph.

    It is warmed up on the stream that it is captured on, and nowhere else: autograd remembers the stream on which a
    parameter was first used, and a capture that reaches for another one is broken off.
    """
    import torch

    cuda: Any = torch.cuda
    gc.collect()  # graphs of autograd that wait for the collector hold such memories
    with torch.cuda.device(device):
        aside = cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(max(warmup, 3)):
                function()
        torch.cuda.current_stream().wait_stream(aside)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured, stream=aside):
            function()
    return captured.replay
