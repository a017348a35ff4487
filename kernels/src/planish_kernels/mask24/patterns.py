"""The ninety 4x4 patterns with two ones in every row and every column."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

#: The choices of two columns of four, in the order that decides ties: 1100, 1010, 1001, 0110, 0101, 0011.
ROW_PATTERNS: tuple[tuple[int, int, int, int], ...] = (
    (1, 1, 0, 0),
    (1, 0, 1, 0),
    (1, 0, 0, 1),
    (0, 1, 1, 0),
    (0, 1, 0, 1),
    (0, 0, 1, 1),
)


@functools.cache
def transposable_patterns() -> Tensor:
    """Bool ``[90, 4, 4]``, lexicographic in their rows (row 0 first, each in the order of ``ROW_PATTERNS``).

    Source: Hu et al., "Accelerating Transformer Pre-training with 2:4 Sparsity", ICML 2024, section 5.
    """
    squares = [
        rows
        for rows in itertools.product(ROW_PATTERNS, repeat=4)
        if all(sum(column) == 2 for column in zip(*rows, strict=True))
    ]
    return torch.tensor(squares, dtype=torch.bool)
