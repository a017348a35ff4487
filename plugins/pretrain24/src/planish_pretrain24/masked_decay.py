"""Masked decay on gradients: pull the weights that the mask drops towards zero, through the optimizer.

``g += decay * (1 - mask) * W`` before the optimizer's step and after clipping (ICML 2024, section 4). SR-STE adds the
same term to the update itself; inside Adam it is divided by the gradient's second moment, so that weights with large
gradients are held back less and noisy ones more.
"""

from __future__ import annotations

from planish_kernels.masked_decay import masked_decay_
from torch import Tensor, nn

from planish_pretrain24.state import layers, logical_weight


def decay_masked_gradients(model: nn.Module, decay: float) -> None:
    """Add the masked decay to the gradients of all layers in their sparse phase. Waits for no device.

    Args:
        model: The model; layers without a gradient are passed over.
        decay: The factor; 0 changes nothing.
    """
    if decay == 0:
        return
    for _, layer, state in layers(model):
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if state.method == "fst" and not state.dense and weight.grad is not None:
            masked_decay_(state.logical(weight.grad), logical_weight(layer, state), state.mask, decay)
