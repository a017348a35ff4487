"""What quantizes the operands of a linear layer whose weight another method keeps 2:4.

Sparse tensor cores sum codes over the whole inner dimension in INT32, so a scale that changes along it, as that of a
square block does, cannot be taken out of the sum. What can is a scale for each row of either operand, across the inner
dimension:

* forward, ``input @ weight.T``, sums over inputs: a scale for each token and for each output;
* input gradient, ``grad_output @ weight``, sums over outputs: a scale for each token and for each *input*, hence a
  second quantization of the weight, whose mask is 2:4 both ways;
* weight gradient, ``grad_output.T @ input``, has no weight in it. If the method before estimates the gradient 2:4
  along the tokens, that product is left as it is, in 16 bits: quantizing an estimate adds noise to noise, and a scale
  for each channel over all tokens is what outlier tokens of gradients forbid. If not, it is quantized in blocks.

A row confines an outlier of its token, not one of its channel: that is what sparse INT8 costs beside square blocks.
While the weight is not 2:4, in a dense finish say, and for a matmul along which it is not, blocks take over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from planish_kernels.block_quantize import block_quantize
from planish_kernels.formats.block_scaled import BlockScaled
from planish_kernels.formats.format import Operand, decode
from planish_kernels.formats.row_int8 import RowInt8
from planish_kernels.nn import EncodedLinear, Encoder, LinearEncoders, Operands, SparseWeightEncoder, sparse24_along
from torch import Tensor, nn

from planish_jetfire.linear.encoders import QuantizedGradient, QuantizedInput
from planish_jetfire.linear.sparse_weight_codes import SparseWeightCodes
from planish_jetfire.state import CHILD, QuantizationState


class SparseLayer(NamedTuple):
    """What the encoders of one layer share.

    Attributes:
        before: the encoders of the method that keeps the weight 2:4.
        state: the layer's state.
        codes: its quantized weight while it is 2:4.
        format: of blocks.
        block: their side.
    """

    before: LinearEncoders
    state: QuantizationState
    codes: SparseWeightCodes
    format: type[BlockScaled]
    block: int


class InputOfSparse:
    """The input: rows to nearest while the weight is 2:4, else blocks."""

    def __init__(self, layer: SparseLayer) -> None:
        self.layer, self.blocks = layer, QuantizedInput(layer.format, layer.block)

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """``tensor`` [tokens, in]."""
        if not self.layer.state.quantizes:
            return tensor
        if sparse24_along(self.layer.before.forward.right, 1):
            return RowInt8.encode(tensor)
        return self.blocks.encode(tensor, contraction=contraction)


class GradientOfSparse:
    """The output gradient in the input gradient: rows while the weight is 2:4 along its outputs, else blocks."""

    def __init__(self, layer: SparseLayer) -> None:
        self.layer, self.blocks = layer, QuantizedGradient(layer.format, layer.block, layer.state)

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """``tensor`` [tokens, out], rounded as the state says; each call draws anew."""
        state = self.layer.state
        if not state.quantizes:
            return tensor
        if not sparse24_along(self.layer.before.input_grad.right, 0):
            return self.blocks.encode(tensor, contraction=contraction)
        if state.rounding == "nearest":
            return RowInt8.encode(tensor)
        return RowInt8.encode(tensor, "stochastic", state.own_seed(), state.take_offset())


class SparseWeight:
    """The weight as one matmul takes it: codes of its kept entries while it is 2:4, else blocks."""

    from_master = True

    def __init__(self, layer: SparseLayer, before: Encoder, *, is_quantized: bool) -> None:
        self.layer, self.before, self.is_quantized = layer, before, is_quantized

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """The weight [out, in], standing for the dtype in which the layer computes."""
        state = self.layer.state
        compute = state.compute_dtype or tensor.dtype
        if not (state.quantizes and self.is_quantized):
            return self.before.encode(tensor.to(compute), contraction=contraction)
        if sparse24_along(self.before, contraction):
            return self.layer.codes.of(tensor, contraction, compute)
        dense = decode(self.before.encode(tensor, contraction=contraction))
        form, block = self.layer.format, self.layer.block
        return form(*block_quantize(dense, form.code_dtype, block), block, compute)

    def refresh(self) -> None:
        """Have it quantized anew."""
        self.layer.codes.invalidate()


class GradientOfWeight:
    """The output gradient in the weight gradient: as the method before has it while that is 2:4, else in blocks."""

    def __init__(self, layer: SparseLayer) -> None:
        self.layer, self.blocks = layer, QuantizedGradient(layer.format, layer.block, layer.state)

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """``tensor`` [tokens, out]."""
        before = self.layer.before.weight_grad.left
        is_quantized = self.layer.state.quantizes and not sparse24_along(before, 0)
        first = tensor if before is None else before.encode(tensor, contraction=contraction)
        return self.blocks.encode(decode(first), contraction=contraction) if is_quantized else first


class InputOfWeight:
    """The input in the weight gradient: in blocks where the gradient is."""

    def __init__(self, layer: SparseLayer) -> None:
        self.layer, self.blocks = layer, QuantizedInput(layer.format, layer.block)

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """``tensor`` [tokens, in]."""
        is_quantized = self.layer.state.quantizes and not sparse24_along(self.layer.before.weight_grad.left, 0)
        return self.blocks.encode(tensor, contraction=contraction) if is_quantized else tensor


def keeps_weight_24(encoders: LinearEncoders) -> bool:
    """Whether encoders of another method keep a weight 2:4 and leave all else to be quantized by rows."""
    forward, input_grad, weight_grad = encoders.forward, encoders.input_grad, encoders.weight_grad
    return (
        isinstance(forward.right, SparseWeightEncoder)
        and input_grad.right is not None
        and forward.left is input_grad.left is weight_grad.right is None
    )


def quantize_sparse(
    layer: EncodedLinear, state: QuantizationState, format: type[BlockScaled], block: int, matmuls: Collection[str]
) -> None:
    """Have a layer whose encoders ``keeps_weight_24`` compute quantized as well; ``state.before`` holds what it had."""
    before = layer.encoders
    assert isinstance(before.forward.right, SparseWeightEncoder)
    assert before.input_grad.right is not None
    codes = SparseWeightCodes(before.forward.right, for_input_grad="input_grad" in matmuls)
    shared = SparseLayer(before, state, codes, format, block)
    forward, input_grad, weight_grad = (name in matmuls for name in ("forward", "input_grad", "weight_grad"))
    layer.encoders = LinearEncoders(
        forward=Operands(
            InputOfSparse(shared) if forward else None,
            SparseWeight(shared, before.forward.right, is_quantized=forward),
        ),
        input_grad=Operands(
            GradientOfSparse(shared) if input_grad else None,
            SparseWeight(shared, before.input_grad.right, is_quantized=input_grad),
        ),
        weight_grad=Operands(GradientOfWeight(shared), InputOfWeight(shared)) if weight_grad else before.weight_grad,
    )
    state.before, state.sparse_codes = before, codes
    layer.register_forward_pre_hook(_before_forward, with_kwargs=True)


def restore_sparse(layer: EncodedLinear, state: QuantizationState) -> None:
    """Give a layer the encoders back that it had."""
    assert state.before is not None
    layer.encoders = state.before
    for key, hook in list(layer._forward_pre_hooks.items()):
        if hook is _before_forward:
            del layer._forward_pre_hooks[key]
            layer._forward_pre_hooks_with_kwargs.pop(key, None)


def _before_forward(layer: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Note in which dtype the layer computes, which its weight's encoders are not told, and that its codes are read."""
    state = layer._modules[CHILD]
    assert isinstance(state, QuantizationState)
    assert state.sparse_codes is not None
    input: Tensor = arguments[0] if arguments else named["input"]
    device = input.device.type
    autocast = torch.is_autocast_enabled(device) and input.dtype is not torch.float64
    state.compute_dtype = torch.get_autocast_dtype(device) if autocast else input.dtype
    state.sparse_codes.begin_forward()
