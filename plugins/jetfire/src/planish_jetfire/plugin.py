"""What this distribution offers to planish."""

from __future__ import annotations

import planish
from planish.plugins.hookspecs import Register


@planish.hookimpl
def planish_register_quantizers(register: Register) -> None:
    """Register the quantizer."""
    register("jetfire", "planish_jetfire.quantizer:Jetfire", "INT8 training with a quantized data flow")


@planish.hookimpl
def planish_register_benchmarks(register: Register) -> None:
    """Register the benchmark programs."""
    register(
        "jetfire",
        "planish_jetfire.benchmark.jetfire_speed:bench",
        "matmuls, operators, whole blocks and INT8 2:4 networks beside compiled bfloat16",
    )
    register(
        "jetfire-learning",
        "planish_jetfire.benchmark.learning:bench",
        "validation losses of INT8 training beside full precision at equal steps, with outliers and ablations",
    )
