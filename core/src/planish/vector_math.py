"""Settling torch's vector math on CPUs before several threads use it.

The MKL in torch's CPU wheels chooses the kernel of a vector function (``exp``, ``erf``, …) when it is first called. If
that call is spread over threads, one of them may take a kernel of half the accuracy for its share, once in a process
(pytorch/pytorch#188792): float64 results are then right to 1e-8 only, and two runs of one seed differ.
"""

from __future__ import annotations

import torch

_FUNCTIONS = (
    *("acos", "asin", "atan", "ceil", "cos", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "floor", "lgamma"),
    *("log", "log10", "log1p", "log2", "round", "rsqrt", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)
_DTYPES = (torch.float32, torch.float64)


def settle_vector_math() -> None:
    """Call each vector function on one element, which takes one thread; about two milliseconds.

    Call it before work that must be the same in every process: bit-exact resume, comparisons in float64.
    """
    for dtype in _DTYPES:
        half = torch.full((1,), 0.5, dtype=dtype)
        for name in _FUNCTIONS:
            getattr(torch, name)(half)
