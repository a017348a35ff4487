"""The operands of a layer's matmuls on 2:4 kernels: packed weight, packed estimate of the output gradient.

A layer whose state has no packs is emulated by the same encoders, so that execution can be settled when the model has
reached its device, after other transforms have chained theirs. A layer whose weight another method encodes after this
one never has any: that method makes an operand of its own.
"""

from __future__ import annotations

import warnings

import torch
from planish_kernels.formats.format import Operand
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.nn import EncodedLinear, Encoder, LinearEncoders, Operands
from torch import Tensor, nn

from planish_pretrain24.encoders import MaskedWeight, SoftThresholdWeight, UnbiasedGradient
from planish_pretrain24.state import LayerSparsity

_PACKED = (torch.bfloat16, torch.float16)


class PackedWeight:
    """The packed weight where the layer computes in the packs' dtype, else the emulated one."""

    def __init__(self, state: LayerSparsity, emulated: MaskedWeight | SoftThresholdWeight) -> None:
        self.state = state
        self.emulated = emulated

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """The 2:4 weight [out, in], packed along ``contraction``."""
        state = self.state
        if state.dense:
            return tensor
        if state.packs is None:
            return self.emulated.encode(tensor, contraction=contraction)
        if tensor.dtype is state.packs.dtype:
            return state.packs.operand(tensor, state, contraction)
        if not torch.compiler.is_compiling():
            _warn_of_dtype(tensor.dtype, state.packs.dtype)
        return self.emulated.encode(tensor, contraction=contraction)

    def is_sparse24(self, contraction: int) -> bool:
        """As the emulated operand: packs hold the same."""
        return self.emulated.is_sparse24(contraction)

    def weight_and_mask(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """As the emulated operand has them."""
        return self.emulated.weight_and_mask(tensor)

    def refresh(self) -> None:
        """Have the packs filled anew."""
        if self.state.packs is not None:
            self.state.packs.invalidate()


class PackedGradient(UnbiasedGradient):
    """The unbiased 2:4 estimate of the output gradient, packed along the tokens while it is made."""

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:  # type: ignore[override]
        """The estimate of ``tensor`` [tokens, out], filled up to a multiple of 64 tokens."""
        state = self.state
        if not state.on_kernels or state.dense or contraction != 0 or tensor.dtype not in _PACKED:
            return super().encode(tensor, contraction=contraction)
        estimate = Sparse24CuSparseLt.encode_gradient(tensor, state.own_seed(), state.draws)
        state.draws.add_(1)
        return estimate


def is_followed(layer: nn.Module) -> bool:
    """Whether another method encodes the weight of a layer after this one."""
    return isinstance(layer, EncodedLinear) and not isinstance(layer.encoders.forward.right, PackedWeight)


def packed(state: LayerSparsity, mvue: str) -> LinearEncoders:
    """Encoders of a layer that may run on 2:4 kernels.

    S-STE's weight is 2:4 along the inputs only, so its input gradient is dense.
    """
    emulated = MaskedWeight(state) if state.method == "fst" else SoftThresholdWeight(state)
    weight = PackedWeight(state, emulated)
    other: Encoder = weight if state.method == "fst" else emulated
    gradient = None if mvue == "off" else PackedGradient(state, mvue)
    return LinearEncoders(
        forward=Operands(right=weight), input_grad=Operands(right=other), weight_grad=Operands(left=gradient)
    )


_WARNED: set[tuple[torch.dtype, torch.dtype]] = set()


def _warn_of_dtype(found: torch.dtype, packs: torch.dtype) -> None:
    if (found, packs) not in _WARNED:
        _WARNED.add((found, packs))
        warnings.warn(
            f"pretrain24: layers are packed for {packs} and compute in {found}, so their matmuls are emulated; train "
            f"under torch.autocast('cuda', {packs}), or set sparse_dtype",
            stacklevel=2,
        )
