"""Quantized 2:4 weights: made once for each value of weight and mask, read by the passes of all micro-steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from planish_kernels.formats.format import Operand
from planish_kernels.formats.row_int8 import RowInt8
from planish_kernels.nn import SparseWeightEncoder
from torch import Tensor


class SparseWeightCodes:
    """INT8 codes of the kept entries of one weight: by rows for the forward pass, by columns for the input gradient.

    Made anew when :class:`planish_jetfire.weight_codes.WeightCodes` are. Masks change between optimizer steps, by hooks
    of the method before this one, so codes made after the step follow them.
    """

    def __init__(self, source: SparseWeightEncoder, *, for_input_grad: bool) -> None:
        """Create codes that are filled at first use.

        Args:
            source: what says which entries are kept.
            for_input_grad: whether codes by columns are wanted, where the weight is 2:4 along its outputs too.
        """
        self.source = source
        self.for_input_grad = for_input_grad
        self.operands: tuple[RowInt8, ...] = ()
        self.key: tuple[int, int] | None = None
        self.is_stale = True
        self.is_driven = False
        self.is_used = False

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are filled anew: addresses and counters mean nothing elsewhere."""
        return {**self.__dict__, "operands": (), "key": None, "is_stale": True}

    def invalidate(self) -> None:
        """Have them made anew at the next use."""
        self.is_stale = True

    def begin_forward(self) -> None:
        """Note that they are read, and have them made anew unless the training loop tells when weights change."""
        self.is_used = True
        if not self.is_driven:
            self.is_stale = True

    @torch.no_grad()
    def fill(self, weights: Sequence[Tensor]) -> None:
        """Quantize the one weight, [out, in] of any strides, while it is 2:4. Waits for no device."""
        (weight,) = weights
        if not self.source.is_sparse24(1):
            self.is_stale = True
            return
        made = self._encoded(weight)
        if len(made) == len(self.operands) and all(map(_fits, self.operands, made)):
            # In place, as CUDA graphs need it.
            for kept, fresh in zip(self.operands, made, strict=True):
                for mine, other in zip(kept.tensors().values(), fresh.tensors().values(), strict=True):
                    mine.copy_(other)
        else:
            self.operands = tuple(operand.apply(torch.clone) for operand in made)
        self.key = (weight.data_ptr(), weight._version)
        self.is_stale = False

    def of(self, weight: Tensor, contraction: int, dtype: torch.dtype) -> Operand:
        """The weight [out, in] in codes, decoding to ``dtype``: a scale for each entry of the other dimension."""
        operands = self._current(weight)
        operand = operands[0 if contraction == 1 else 1]
        standing_for = RowInt8(operand.values, operand.scales, dtype)
        return standing_for if contraction == 1 else standing_for.T

    def _current(self, weight: Tensor) -> tuple[RowInt8, ...]:
        if torch.compiler.is_compiling():
            # A traced graph cannot look at counters, nor fill what outlives it.
            if self.is_stale or not self.operands or self.operands[0].scales.device != weight.device:
                return self._encoded(weight)
            return self.operands
        if self.is_stale or not self.operands or self.key != (weight.data_ptr(), weight._version):
            self.fill([weight])
        return self.operands

    def _encoded(self, weight: Tensor) -> tuple[RowInt8, ...]:
        both_ways = self.for_input_grad and self.source.is_sparse24(0)
        values, mask = self.source.weight_and_mask(weight)
        forward, backward = RowInt8.encode24(values, mask, both_ways=both_ways)
        return (forward,) if backward is None else (forward, backward)


def _fits(kept: RowInt8, fresh: RowInt8) -> bool:
    mine, others = kept.tensors(), fresh.tensors()
    return mine.keys() == others.keys() and all(
        mine[name].shape == others[name].shape and mine[name].device == others[name].device for name in mine
    )
