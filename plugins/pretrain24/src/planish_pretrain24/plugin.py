"""What this distribution offers to planish."""

from __future__ import annotations

import planish
from planish.plugins.hookspecs import Register


@planish.hookimpl
def planish_register_sparsifiers(register: Register) -> None:
    """Register the sparsifier."""
    register("pretrain24", "planish_pretrain24.sparsifier:Pretrain24", "2:4 sparse pre-training of FFNs")


@planish.hookimpl
def planish_register_benchmarks(register: Register) -> None:
    """Register the benchmark programs."""
    register(
        "pretrain24",
        "planish_pretrain24.benchmark.ffn_speed:bench",
        "feed-forward networks, forward and backward: 2:4 beside compiled dense bfloat16",
    )
    register(
        "pretrain24-learning",
        "planish_pretrain24.benchmark.learning:bench",
        "flip rates and validation losses of dense, STE, FST and S-STE at equal steps",
    )
