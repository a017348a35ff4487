"""Puts an encoded layer in the place of a linear one, and the original class back at the end."""

from __future__ import annotations

import copy

import torch
from planish import targets
from planish_kernels.nn import EncodedLinear, LinearEncoders
from torch import nn

from planish_pretrain24.state import CHILD, LayerSparsity, attach, detach


def encode(model: nn.Module, name: str, layer: nn.Module, state: LayerSparsity, encoders: LinearEncoders) -> None:
    """Replace ``model.<name>`` by an encoded layer with the same parameters, and hang the state below it."""
    encoded = EncodedLinear.from_linear(layer, encoders, transposed_weight=state.transposed)
    attach(encoded, state)
    targets.replace(model, name, encoded)


def restore(model: nn.Module, name: str, layer: nn.Module, state: LayerSparsity) -> None:
    """Take the state off, and give the layer its original class back; parameters, hooks and mode stay."""
    detach(layer)
    if state.original is None:
        return
    plain = state.original.__new__(state.original)
    kept = {key: value for key, value in layer.__dict__.items() if key not in ("encoders", "transposed_weight")}
    if not issubclass(state.original, nn.Linear):
        kept = {key: value for key, value in kept.items() if key not in ("in_features", "out_features")}
    plain.__dict__.update({key: copy.copy(value) if isinstance(value, dict) else value for key, value in kept.items()})
    targets.replace(model, name, plain)


@torch.no_grad()
def write_sparse_weight(layer: nn.Module, state: LayerSparsity) -> None:
    """Overwrite the dense weight by the sparse one that the layer computes with: exact zeros, 2:4."""
    from planish_pretrain24.s_ste import sparse_weight

    weight = state.logical(layer.weight)  # type: ignore[arg-type]
    if state.method == "fst":
        weight.masked_fill_(state.dropped(), 0)
    elif state.method == "sste":
        weight.copy_(sparse_weight(weight, state.scale))


__all__ = ["CHILD", "encode", "restore", "write_sparse_weight"]
