"""Weights packed for 2:4 kernels: filled once per optimizer step, read by all passes of its micro-steps.

Packs are copies of what weight, mask and scale say, so they are no buffers: nothing of them belongs into a checkpoint,
and data-parallel training need not send them around.
"""

from __future__ import annotations

import torch
from planish_kernels.cusparselt.layout import packed_numel
from planish_kernels.cusparselt.op import pack_
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from torch import Tensor, nn

from planish_pretrain24.state import LayerSparsity, layers, logical_weight


class WeightPacks:
    """The packed weight of one layer: 2:4 along the inputs, and for FST along the outputs too.

    The buffers stay in place from step to step, as CUDA graphs need it.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Create packs that are filled at first use.

        Args:
            dtype: bfloat16 or float16, the dtype in which the layer computes.
        """
        self.dtype = dtype
        self.along_inputs: Tensor | None = None
        self.along_outputs: Tensor | None = None
        self.is_stale = True

    def invalidate(self) -> None:
        """Have them filled anew at the next use."""
        self.is_stale = True

    @torch.no_grad()
    def fill(self, weight: Tensor, state: LayerSparsity) -> None:
        """Pack the weight [out, in], reading it once for both orientations. Waits for no device."""
        if self.along_inputs is None or self.along_inputs.device != weight.device:
            rows, cols = weight.shape
            buffer = torch.empty(packed_numel(rows, cols, self.dtype), dtype=self.dtype, device=weight.device)
            self.along_inputs = buffer
            self.along_outputs = torch.empty_like(buffer) if state.method == "fst" else None
        _pack(weight, state, self.along_inputs, self.along_outputs)
        self.is_stale = False

    def operand(self, weight: Tensor, state: LayerSparsity, contraction: int) -> Sparse24CuSparseLt | Tensor:
        """The packed operand of shape [out, in] whose groups of four run along ``contraction``."""
        along_inputs, along_outputs = self.along_inputs, self.along_outputs
        if torch.compiler.is_compiling():
            if self.is_stale or along_inputs is None:
                # A traced graph cannot fill what outlives it; the packs of the next optimizer step do without this.
                rows, cols = weight.shape
                along_inputs = weight.new_empty(packed_numel(rows, cols, self.dtype), dtype=self.dtype)
                along_outputs = torch.empty_like(along_inputs) if state.method == "fst" else None
                _pack(weight, state, along_inputs, along_outputs)
        elif self.is_stale or along_inputs is None or along_inputs.device != weight.device:
            self.fill(weight, state)
            along_inputs, along_outputs = self.along_inputs, self.along_outputs
        assert along_inputs is not None
        rows, cols = state.out_features, state.in_features
        if contraction == 1:
            return Sparse24CuSparseLt.of(along_inputs, rows, cols)
        assert along_outputs is not None
        return Sparse24CuSparseLt.of(along_outputs, cols, rows).T  # type: ignore[return-value]


def _pack(weight: Tensor, state: LayerSparsity, along_inputs: Tensor, along_outputs: Tensor | None) -> None:
    if state.method == "fst":
        pack_(weight, along_inputs, along_outputs, mask=state.mask)
    else:
        # The threshold is that of the copy in the compute dtype, which autocast hands to every other matmul of the
        # layer: thresholded from a float32 master, the forward pass would use another weight than its input gradient.
        pack_(weight.to(along_inputs.dtype), along_inputs, scale=state.scale)


def refresh(layer: nn.Module, state: LayerSparsity) -> None:
    """Fill a layer's packs from its current weight, if it has any and is in its sparse phase."""
    if state.packs is not None and not state.dense:
        state.packs.fill(logical_weight(layer, state), state)


def refresh_all(model: nn.Module) -> None:
    """Fill the packs of all layers."""
    for _, layer, state in layers(model):
        refresh(layer, state)
