"""The mask that each method derives from a weight, and its search for all layers of a model."""

from __future__ import annotations

import torch
from planish_kernels.mask24 import flip_count, rowwise_mask_bits, transposable_mask_bits
from torch import Tensor, nn

from planish_pretrain24.state import LayerSparsity, layers, logical_weight


def search(weight: Tensor, method: str) -> Tensor:
    """The packed mask of a weight [out, in]: uint8 ``[out, ceil(in / 8)]``.

    ``fst`` and ``virtual``: the transposable mask of largest magnitude, exact over the ninety patterns of each 4x4
    block (ICML 2024, section 5). ``sste``: the two largest magnitudes of every four along the inputs.
    """
    if method == "sste":
        return rowwise_mask_bits(weight)
    return transposable_mask_bits(weight)


@torch.no_grad()
def refresh(layer: nn.Module, state: LayerSparsity) -> None:
    """Search the layer's mask from its current dense weight, and count what changed. Waits for no device."""
    mask = search(logical_weight(layer, state), state.method)
    state.flips.copy_(flip_count(state.mask, mask))
    state.mask.copy_(mask)


@torch.no_grad()
def initialise(layer: nn.Module, state: LayerSparsity) -> None:
    """Search the first mask of a layer (nothing flips), and for S-STE fix its scale."""
    from planish_pretrain24.s_ste import initial_scale

    weight = logical_weight(layer, state)
    state.mask.copy_(search(weight, state.method))
    state.flips.zero_()
    if state.method == "sste":
        state.scale.copy_(initial_scale(weight))


def kept(model: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> bool mask of the parameter's shape, for each layer that computes with a sparse weight now."""
    from planish_pretrain24.s_ste import sparse_weight

    found: dict[str, Tensor] = {}
    for name, layer, state in layers(model):
        if state.method == "virtual" or state.dense:
            continue
        weight = logical_weight(layer, state)
        mask = state.kept() if state.method == "fst" else sparse_weight(weight, state.scale) != 0
        found[f"{name}.weight"] = state.logical(mask).contiguous()
    return found
