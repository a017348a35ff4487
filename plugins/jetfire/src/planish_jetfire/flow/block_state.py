"""The state of a block that computes as one."""

from __future__ import annotations

import torch
from torch import nn

from planish_jetfire.flow.arithmetic import Arithmetic, Draws
from planish_jetfire.flow.handover import Handover
from planish_jetfire.state import QuantizationState
from planish_jetfire.structure import TransformerBlock
from planish_jetfire.weight_codes import WeightCodes


class BlockState(QuantizationState):
    """A :class:`QuantizationState` that knows its block.

    Attributes:
        structure: what the block is made of.
        arithmetic: in which format it computes.
        keeps_residual: whether the residual stream stays in full precision.
        recomputes_activation: whether backward computes the activation again.
        handover: what passes between the block and its layers.
        projection_codes, out_codes, expand_codes, contract_codes: the quantized weights.
        transposed: names of the linears that store their weight [in, out].
        hidden_name: what the block's ``forward`` calls its first argument.
        original: class of the block.
    """

    def __init__(
        self,
        device: torch.device,
        structure: TransformerBlock,
        arithmetic: Arithmetic,
        *,
        seed: int,
        start_step: int,
        keeps_residual: bool,
        recomputes_activation: bool,
        transposed: frozenset[str],
        hidden_name: str,
        original: type[nn.Module],
    ) -> None:
        """Create the state for a block; see the attributes."""
        super().__init__(device, seed=seed, rounding=arithmetic.rounding, start_step=start_step)
        self.structure = structure
        self.arithmetic = arithmetic
        self.keeps_residual = keeps_residual
        self.recomputes_activation = recomputes_activation
        self.handover = Handover(structure.features)
        self.transposed = transposed
        self.hidden_name = hidden_name
        self.original = original
        kind = arithmetic.format, arithmetic.block
        self.projection_codes, self.out_codes = WeightCodes(*kind), WeightCodes(*kind)
        self.expand_codes, self.contract_codes = WeightCodes(*kind), WeightCodes(*kind)

    @property
    def all_codes(self) -> tuple[tuple[WeightCodes, tuple[str, ...]], ...]:
        """The quantized weights, with the names of the linears that each stands for."""
        structure = self.structure
        return (
            (self.projection_codes, structure.projections),
            (self.out_codes, (structure.out,)),
            (self.expand_codes, structure.expand),
            (self.contract_codes, (structure.contract,)),
        )

    def is_transposed(self, names: tuple[str, ...]) -> tuple[bool, ...]:
        """Which of these linears store their weight [in, out]."""
        return tuple(name in self.transposed for name in names)

    def take_draws(self) -> Draws:
        """The random draws of one backward pass."""
        if self.rounding == "nearest":
            return Draws(None, None)
        return Draws(self.own_seed(), self.take_offsets())
