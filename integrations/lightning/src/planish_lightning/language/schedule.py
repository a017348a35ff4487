"""The learning-rate schedule of language-model pre-training."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, warmup: int, total: int, floor: float) -> float:
    """Return the factor on the peak learning rate for optimizer step ``step`` (from 0).

    Linear from 1/warmup to 1 over ``warmup`` steps, then half a cosine down to ``floor``, reached at ``total``.
    """
    if step < warmup:
        return (step + 1) / warmup
    if step >= total:
        return floor
    progress = (step - warmup) / max(1, total - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
