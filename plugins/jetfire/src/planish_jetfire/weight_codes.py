"""Quantized weights: made once for each value of the weight, read by all matmuls of all micro-steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from planish_kernels.block_quantize import block_quantize, block_quantize_joined
from planish_kernels.formats.block_scaled import BlockScaled
from torch import Tensor


class WeightCodes:
    """Codes and scales of one weight, or of several that multiply one input, stacked along their outputs.

    They follow from the weights, so they are no buffers: nothing of them belongs into a checkpoint. The buffers stay in
    place, as CUDA graphs need it. When they are made anew:

    * In a training loop that calls the transform's hooks (``is_driven``): after each optimizer step, and eagerly when
      a weight's version counter or memory says that it changed besides.
    * In one that does not: in each forward pass. Counters do not tell (fused optimizers write past them).
    * In a traced graph, which cannot look at counters: in the graph, unless :meth:`fill` has been called since the last
      :meth:`invalidate`; the hooks do so.
    """

    def __init__(self, format: type[BlockScaled], block: int) -> None:
        """Create codes that are filled at first use.

        Args:
            format: ``BlockInt8`` or ``BlockFloat8``.
            block: side of a block.
        """
        self.format = format
        self.block = block
        self.codes: Tensor | None = None
        self.scales: Tensor | None = None
        self.key: tuple[tuple[int, int], ...] | None = None
        self.is_stale = True
        self.is_driven = False
        self.is_used = False

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are filled anew: addresses and counters mean nothing elsewhere."""
        return {**self.__dict__, "codes": None, "scales": None, "key": None, "is_stale": True}

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
        """Quantize the weights, each [out, in] of any strides. Waits for no device."""
        if self.codes is None or self.scales is None or self.codes.device != weights[0].device:
            self.codes, self.scales = self._quantized(weights)
        elif self._joins(weights):
            out = self.codes, self.scales
            block_quantize_joined(weights, 0, self.format.code_dtype, self.block, out=out)
        else:
            codes, scales = self._quantized(weights)
            self.codes.copy_(codes)
            self.scales.copy_(scales)
        self.key = _key(weights)
        self.is_stale = False

    def of(self, weights: Sequence[Tensor], dtype: torch.dtype) -> list[BlockScaled]:
        """The quantized weights, each [out, in], decoding to ``dtype``; rows of one stack where :meth:`stack` works."""
        codes, scales = self._current(weights)
        found, row, block_row = [], 0, 0
        for weight in weights:
            rows = weight.shape[0]
            block_rows = -(-rows // self.block)
            part = codes[row : row + rows], scales[block_row : block_row + block_rows]
            found.append(self.format(*part, self.block, dtype))
            row, block_row = row + rows, block_row + block_rows
        return found

    def stack(self, weights: Sequence[Tensor], dtype: torch.dtype) -> BlockScaled | None:
        """All weights as one matrix [sum of outs, in]; None where a block would reach over the end of one."""
        if not stacks([weight.shape[0] for weight in weights], self.block):
            return None
        return self.format(*self._current(weights), self.block, dtype)

    def _current(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling():
            missing = self.is_stale or self.codes is None or self.scales is None
            if missing or self.codes.device != weights[0].device:  # type: ignore[union-attr]
                return self._quantized(weights)
            assert self.codes is not None
            assert self.scales is not None
            return self.codes, self.scales
        if self.is_stale or self.codes is None or self.scales is None or self.key != _key(weights):
            self.fill(weights)
        assert self.codes is not None
        assert self.scales is not None
        return self.codes, self.scales

    def _quantized(self, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        if self._joins(weights):
            return block_quantize_joined(weights, 0, self.format.code_dtype, self.block)
        pairs = [block_quantize(weight, self.format.code_dtype, self.block) for weight in weights]
        return torch.cat([codes for codes, _ in pairs]), torch.cat([scales for _, scales in pairs])

    def _joins(self, weights: Sequence[Tensor]) -> bool:
        """Whether one call quantizes all weights: they share a dtype, and no block reaches over the end of one."""
        return stacks([len(weight) for weight in weights], self.block) and len({w.dtype for w in weights}) == 1


def stacks(sizes: Sequence[int], block: int) -> bool:
    """Whether matrices of these sizes can be stacked in blocks: all but the last are multiples of the block."""
    return all(size % block == 0 for size in sizes[:-1])


def _key(weights: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((weight.data_ptr(), weight._version) for weight in weights)
