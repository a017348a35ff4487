"""What quantizes the operands of a linear layer's matmuls.

The input is quantized to nearest, in the forward pass and again for the weight gradient (the same codes); the weight
once for each value it has, for the forward pass and the input gradient alike; the output gradient stochastically.
"""

from __future__ import annotations

from collections.abc import Collection

from planish_kernels.formats.block_scaled import BlockScaled
from planish_kernels.formats.format import Operand, decode
from planish_kernels.nn import Encoder, LinearEncoders, Operands
from torch import Tensor

from planish_jetfire.state import QuantizationState
from planish_jetfire.weight_codes import WeightCodes


class QuantizedInput:
    """Blocks rounded to nearest."""

    def __init__(self, format: type[BlockScaled], block: int) -> None:
        self.format, self.block = format, block

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """``tensor`` in blocks."""
        return self.format.encode(tensor, self.block)


class QuantizedGradient:
    """Blocks rounded as the state says; each call draws anew."""

    def __init__(self, format: type[BlockScaled], block: int, state: QuantizationState) -> None:
        self.format, self.block, self.state = format, block, state

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """``tensor`` in blocks."""
        if self.state.rounding == "nearest":
            return self.format.encode(tensor, self.block)
        offset = self.state.take_offset()
        return self.format.encode(tensor, self.block, "stochastic", self.state.own_seed(), offset)


class QuantizedWeight:
    """The master weight in blocks, quantized when it has changed."""

    from_master = True

    def __init__(self, codes: WeightCodes, state: QuantizationState) -> None:
        self.codes, self.state = codes, state

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """The weight [out, in] in blocks that stand for the dtype in which the layer computes."""
        return self.codes.of([tensor], self.state.compute_dtype or tensor.dtype)[0]

    def refresh(self) -> None:
        """Have it quantized anew."""
        self.codes.invalidate()


class CastWeight:
    """The dense weight in the dtype in which the layer computes, for a matmul that is not quantized."""

    from_master = True

    def __init__(self, state: QuantizationState) -> None:
        self.state = state

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """The weight as autocast would hand it to the matmul."""
        return tensor.to(self.state.compute_dtype or tensor.dtype)


class WhileQuantizing:
    """Another encoder while the state quantizes, and the operand as it is in evaluation and before ``start_step``.

    For layers that another method encodes too, which may hand on an operand of its own format: that is decoded.
    :class:`planish_jetfire.linear.BlockLinear` has its own dense path.
    """

    def __init__(self, encoder: Encoder, state: QuantizationState) -> None:
        self.encoder, self.state = encoder, state

    def encode(self, tensor: Operand, *, contraction: int) -> Operand:
        """``tensor``, in blocks or as it is."""
        return self.encoder.encode(decode(tensor), contraction=contraction) if self.state.quantizes else tensor


def own_encoders(codes: WeightCodes, state: QuantizationState, matmuls: Collection[str]) -> LinearEncoders:
    """Encoders of a layer that no other method encodes."""
    input, gradient = QuantizedInput(codes.format, codes.block), QuantizedGradient(codes.format, codes.block, state)
    weight, cast = QuantizedWeight(codes, state), CastWeight(state)
    return LinearEncoders(
        forward=Operands(input, weight) if "forward" in matmuls else Operands(right=cast),
        input_grad=Operands(gradient, weight) if "input_grad" in matmuls else Operands(right=cast),
        weight_grad=Operands(gradient, input) if "weight_grad" in matmuls else Operands(),
    )


def following_encoders(
    format: type[BlockScaled], block: int, state: QuantizationState, matmuls: Collection[str]
) -> LinearEncoders:
    """Encoders that quantize what another method made of the operands (the values of a sparse format, say).

    Such a weight is not the parameter any more, so it is quantized in each pass.
    """
    nearest = WhileQuantizing(QuantizedInput(format, block), state)
    gradient = WhileQuantizing(QuantizedGradient(format, block, state), state)
    return LinearEncoders(
        forward=Operands(nearest, nearest) if "forward" in matmuls else Operands(),
        input_grad=Operands(gradient, nearest) if "input_grad" in matmuls else Operands(),
        weight_grad=Operands(gradient, nearest) if "weight_grad" in matmuls else Operands(),
    )
