"""Compiling a function for batches of all sizes, once for the first size of pictures and once for all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def compiled_for_any_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of tensors ``[batch, channels, height, width]``, compiled.

    There is one program for all batches of two or more, and one for a batch of one. Pictures of the first size get
    programs of their own, all others share.

    Without marks the compiler takes the first batch that comes for the only one, and lets go of one side at a time: the
    sides of a correlation pyramid would use up the programs that it allows a function.
    """
    compiled = torch.compile(function)
    first: list[torch.Size] = []
    varies = False

    def run(*tensors: torch.Tensor) -> Any:
        from torch._dynamo import maybe_mark_dynamic  # takes seconds

        nonlocal varies
        sides = [tensor.shape[2:] for tensor in tensors]
        first.extend(() if first else sides)
        varies = varies or sides != first
        for tensor in tensors:
            for dim in (0, 2, 3) if varies else (0,):
                maybe_mark_dynamic(tensor, dim)
        return compiled(*tensors)

    return run
