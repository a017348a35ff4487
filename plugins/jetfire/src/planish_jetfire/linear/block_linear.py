"""A linear layer whose matmuls are quantized in training, and dense in evaluation."""

from __future__ import annotations

import copy
from typing import Self

import torch
from planish_kernels.nn import EncodedLinear
from torch import Tensor, nn

from planish_jetfire.flow.handover import Handover
from planish_jetfire.linear.encoders import own_encoders
from planish_jetfire.state import CHILD, QuantizationState
from planish_jetfire.weight_codes import WeightCodes


class BlockLinear(EncodedLinear):
    """``EncodedLinear`` that quantizes in training from ``start_step`` on, and else is the layer it stands for.

    Attributes:
        original: class of that layer; its ``forward`` is the dense path.
        codes: the quantized weight.
        handover: where the layer is part of a block that computes as one, what passes between them; else None.
        role: what it is in that block, see :class:`planish_jetfire.flow.handover.Handover`.
    """

    original: type[nn.Module]
    codes: WeightCodes
    handover: Handover | None
    role: int

    @classmethod
    def of(cls, layer: nn.Module, state: QuantizationState, codes: WeightCodes, matmuls: tuple[str, ...]) -> Self:
        """Take the place of ``layer``; parameters, hooks and mode move over, the state becomes a child.

        Args:
            layer: an ``nn.Linear``, or a ``Conv1D``, which stores its weight [in, out].
            state: its state.
            codes: its quantized weight.
            matmuls: which are quantized.
        """
        transposed = not isinstance(layer, nn.Linear)
        made = cls.from_linear(layer, own_encoders(codes, state, matmuls), transposed_weight=transposed)
        made.original, made.codes, made.handover, made.role = type(layer), codes, None, 0
        made.add_module(CHILD, state)
        return made

    def to_original(self) -> nn.Module:
        """The layer that this one stands for, with the same parameters, hooks and mode."""
        plain = self.original.__new__(self.original)
        own = {"encoders", "transposed_weight", "original", "codes", "handover", "role"}
        if not issubclass(self.original, nn.Linear):
            own |= {"in_features", "out_features"}
        kept = {key: value for key, value in self.__dict__.items() if key not in own}
        plain.__dict__.update({k: copy.copy(v) if isinstance(v, dict) else v for k, v in kept.items()})
        plain._modules.pop(CHILD, None)
        return plain

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]``."""
        if self.handover is not None and self.handover.is_open:
            return self.handover.meet(self.role, input)
        state = self._modules[CHILD]
        assert isinstance(state, QuantizationState)
        if not state.quantizes:
            dense: Tensor = self.original.forward(self, input)
            return dense
        device = input.device.type
        autocast = torch.is_autocast_enabled(device) and input.dtype is not torch.float64
        state.compute_dtype = torch.get_autocast_dtype(device) if autocast else input.dtype
        self.codes.begin_forward()
        return super().forward(input)
