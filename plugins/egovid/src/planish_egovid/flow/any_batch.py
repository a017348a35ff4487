"""Compiling a function once for batches of all sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def compiled_for_any_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of tensors with the batch in front, compiled: once for one, once for all larger numbers.

    Without a mark the compiler takes the first size that comes for the only one.
    """
    compiled = torch.compile(function)

    def run(*tensors: torch.Tensor) -> Any:
        from torch._dynamo import maybe_mark_dynamic  # takes seconds

        for tensor in tensors:
            maybe_mark_dynamic(tensor, 0)
        return compiled(*tensors)

    return run
