"""When masks are searched anew, and when training turns dense."""

from __future__ import annotations

import math


def dense_from(total_steps: int, dense_finish: float) -> int | None:
    """The number of optimizer steps after which training is dense: ``floor((1 - dense_finish) * total_steps)``.

    None where there is no dense finish. The paper trains the last sixth dense: GPT-2 250k of 300k steps sparse.

    Args:
        total_steps: Optimizer steps of the run.
        dense_finish: Share of the run at its end, in [0, 1).
    """
    if dense_finish == 0:
        return None
    # (1 - 1/6) * 300 must be 250 whichever way the product is rounded.
    return min(math.floor((1 - dense_finish) * total_steps + 1e-9 * max(total_steps, 1)), total_steps)


def searches_masks(step: int, mask_interval: int) -> bool:
    """Whether masks are searched after ``step`` optimizer steps: at every multiple of the interval."""
    return step > 0 and step % mask_interval == 0
