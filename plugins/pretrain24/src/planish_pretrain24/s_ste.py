"""S-STE: a continuous pruning function in place of a mask that jumps (Hu, Zhu, Chen, NeurIPS 2024).

Of each four weights along the inputs the second smallest magnitude t is taken off all: sign(w) * max(|w| - t, 0). At
least two become zero, and a weight that crosses the threshold passes through zero, so nothing flips abruptly. A factor
per tensor, fixed before training, gives the result the size of the weight.
"""

from __future__ import annotations

from planish_kernels.soft_threshold24 import minimum_mse_scale, soft_threshold24
from torch import Tensor


def initial_scale(weight: Tensor) -> Tensor:
    """The factor of least squared error, ``<W, S(W)> / ||S(W)||^2``, float32 0-d; 1 for an all-zero weight.

    It is computed once and frozen: recomputed, it grows from layer to layer and the flip rate explodes (figure 4).

    Args:
        weight: [out, in].
    """
    return minimum_mse_scale(weight).float()


def sparse_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """``scale * S(weight)``, [out, in], with at most two nonzeros in every four along the inputs."""
    return soft_threshold24(weight, scale)
