"""Benchmark programs: how they time, what they write, and how it is shown.

A benchmark is a function ``(BenchmarkOptions) -> BenchmarkResult`` that a plugin registers through
``planish_register_benchmarks``. It first holds its own operators against their oracle, then times them beside what a
user would pick instead::

    def bench(options: BenchmarkOptions) -> BenchmarkResult:
        oracle = check_against_float64()
        times = interleave({"ours": ours, "cublas bf16": dense}, device=options.device, graph=True)
        row = Row.compare("4096x4096", times.pop("ours"), times, against="cublas bf16", target=1.25)
        return collect("my-method", [row], oracle_passed=oracle, command=options.command)
"""

from planish.benchmark.figure import draw_figure
from planish.benchmark.page import page
from planish.benchmark.schema import BenchmarkResult, Measurement, Row, collect, read_result, write_result
from planish.benchmark.timing import BenchmarkOptions, interleave

__all__ = [
    "BenchmarkOptions",
    "BenchmarkResult",
    "Measurement",
    "Row",
    "collect",
    "draw_figure",
    "interleave",
    "page",
    "read_result",
    "write_result",
]
