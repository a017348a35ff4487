"""The operands of a layer's three matmuls under 2:4 training.

The encoders refer to the layer's state and cache nothing of their own: in the dense finish they hand operands through.
"""

from __future__ import annotations

from planish_kernels.mask24 import pack_mask
from planish_kernels.mvue24 import mvue24
from planish_kernels.nn import LinearEncoders, Operands
from torch import Tensor

from planish_pretrain24.s_ste import sparse_weight
from planish_pretrain24.state import LayerSparsity


class MaskedWeight:
    """The weight with the dropped entries set to zero, dense: the emulated operand of FST."""

    def __init__(self, state: LayerSparsity) -> None:
        self.state = state

    def encode(self, tensor: Tensor, *, contraction: int) -> Tensor:
        """``mask * weight``, [out, in]; the mask is transposable, so either dimension may be the contraction."""
        # A product, not a selection: it is several times faster on a CPU, and a weight that is not finite shows.
        return tensor if self.state.dense else tensor * self.state.kept()

    def is_sparse24(self, contraction: int) -> bool:
        """In the sparse phase, along either dimension."""
        return not self.state.dense

    def weight_and_mask(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The weight as it is, and the mask."""
        return tensor, self.state.mask


class SoftThresholdWeight:
    """``scale * S(weight)``, dense: the operand of S-STE in both matmuls of the weight."""

    def __init__(self, state: LayerSparsity) -> None:
        self.state = state

    def encode(self, tensor: Tensor, *, contraction: int) -> Tensor:
        """The thresholded weight [out, in], 2:4 along the inputs only."""
        return tensor if self.state.dense else sparse_weight(tensor, self.state.scale).to(tensor.dtype)

    def is_sparse24(self, contraction: int) -> bool:
        """Along the inputs."""
        return contraction == 1 and not self.state.dense

    def weight_and_mask(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The thresholded weight, and where it is not zero."""
        thresholded = sparse_weight(tensor, self.state.scale)
        return thresholded, pack_mask(thresholded != 0)


class UnbiasedGradient:
    """The output gradient, 2:4 along the tokens and unbiased: the operand of the weight gradient."""

    def __init__(self, state: LayerSparsity, method: str) -> None:
        self.state = state
        self.method = method

    def encode(self, tensor: Tensor, *, contraction: int) -> Tensor:
        """The estimate of ``tensor`` [tokens, out] with at most two nonzeros in every four tokens."""
        state = self.state
        if state.dense:
            return tensor
        estimate = mvue24(tensor, state.own_seed(), state.draws, dim=contraction, method=self.method)
        state.draws.add_(1)
        return estimate

    def is_sparse24(self, contraction: int) -> bool:
        """In the sparse phase, along the tokens."""
        return contraction == 0 and not self.state.dense


def emulated(state: LayerSparsity, mvue: str) -> LinearEncoders:
    """Encoders that compute the method with dense matmuls: right everywhere, faster nowhere."""
    weight = MaskedWeight(state) if state.method == "fst" else SoftThresholdWeight(state)
    gradient = None if mvue == "off" else UnbiasedGradient(state, mvue)
    return LinearEncoders(
        forward=Operands(right=weight),
        input_grad=Operands(right=weight),
        weight_grad=Operands(left=gradient),
    )
