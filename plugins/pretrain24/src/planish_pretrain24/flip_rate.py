"""The flip rate: how many mask bits change per optimizer step (ICML 2024, definition 4.1; NeurIPS 2024, section 3).

A healthy run's flip rate rises in warm-up and then decays towards zero; under a plain straight-through estimator it
stays high. It is counted at each mask search, and divided by the steps since the last, so it is a mean per step; rates
of different intervals are still not comparable, since a bit that flips twice within an interval is not seen.
"""

from __future__ import annotations

import torch
from torch import nn

from planish_pretrain24.state import layers

FLIP_RATE = "flip_rate"
"""Name of the global metric; a layer's is ``flip_rate/<layer>``."""


def flip_rates(model: nn.Module, interval: int, *, by_layer: bool = True) -> dict[str, float]:
    """Flip rates of the last mask search, in [0, 1], per optimizer step.

    Waits for the device once.

    Args:
        model: A model with at least one layer under 2:4 training, or none, for which nothing is reported.
        interval: Optimizer steps between mask searches.
        by_layer: Whether to report each layer beside the whole.

    Returns:
        ``flip_rate``: flips of all layers over their weights; ``flip_rate/<layer>``: the same of one layer.
    """
    found = [(name, state, state.out_features * state.in_features) for name, _, state in layers(model)]
    if not found:
        return {}
    counts = torch.stack([state.flips for _, state, _ in found]).tolist()
    rates = {FLIP_RATE: sum(counts) / sum(size for *_, size in found) / interval}
    if by_layer:
        rates |= {f"{FLIP_RATE}/{name}": c / size / interval for c, (name, _, size) in zip(counts, found, strict=True)}
    return rates
