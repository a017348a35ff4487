"""What INT8 training is compared with: other scales, and a defect, in the same three matmuls; emulated in float32.

Every encoder gives back what its codes stand for, in the dtype of what it was given: under autocast that rounds it by
2^-9 of itself at most, a fraction of what 127 steps leave. Activations and gradients are quantized once, and the result
serves each matmul that they take part in, as in the method.
"""

from __future__ import annotations

import weakref
from typing import Literal

import torch
import torch.nn.functional as F
from planish_kernels.nn import LinearEncoders
from planish_kernels.nn.encoders import Operands
from torch import Tensor

Scales = Literal["tensor", "token", "block"]
"""What shares a scale: the whole tensor; a row (a token, or an output feature of a weight); a 32x32 block."""
BLOCK = 32
SMALLEST_SCALE = 2.0**-120


def spread_scales(matrix: Tensor, scales: Scales) -> Tensor:
    """The scale of each entry, broadcastable against ``matrix`` [rows, cols]: largest magnitude over 127."""
    magnitude = matrix.abs()
    if scales == "tensor":
        largest = magnitude.amax().reshape(1, 1)
    elif scales == "token":
        largest = magnitude.amax(1, keepdim=True)
    else:
        rows, cols = matrix.shape
        padded = F.pad(magnitude, (0, -cols % BLOCK, 0, -rows % BLOCK))
        tiles = padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
        largest = tiles.amax((1, 3)).repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :cols]
    return (largest / 127).clamp_min(SMALLEST_SCALE)


class FakeInt8:
    """Encodes a matrix as INT8 codes times scales, and gives their product.

    Args:
        scales: what shares a scale.
        generator: draws of stochastic rounding; None rounds to nearest.
        cuts: cut codes off towards zero where they should be rounded. The published Add operators convert to int8 like
            that, after the noise too, which makes every magnitude half a step too small on average.
    """

    def __init__(self, scales: Scales, generator: torch.Generator | None = None, *, cuts: bool = False) -> None:
        self.scales, self.generator, self.cuts = scales, generator, cuts
        self._last: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def encode(self, tensor: Tensor, *, contraction: int) -> Tensor:
        """``tensor`` as its codes have it; the same draws for both matmuls that a gradient takes part in."""
        if self._last is not None and self._last[0]() is tensor and self._last[1] == tensor._version:
            return self._last[2]
        wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        scales = spread_scales(wide, self.scales)
        encoded = (self._codes(wide / scales) * scales).to(tensor.dtype)
        self._last = (weakref.ref(tensor), tensor._version, encoded)
        return encoded

    def _codes(self, ratio: Tensor) -> Tensor:
        if self.generator is None:
            return torch.trunc(ratio) if self.cuts else torch.round(ratio)
        if self.generator.device.type != ratio.device.type:
            # Where the model is shows at the first gradient.
            self.generator = torch.Generator(ratio.device).manual_seed(self.generator.initial_seed())
        uniforms = torch.rand(ratio.shape, generator=self.generator, device=ratio.device, dtype=ratio.dtype)
        if self.cuts:
            codes = torch.trunc(ratio.abs() + uniforms - 0.5).clamp_min(0).copysign(ratio)
        else:
            codes = torch.floor(ratio + uniforms)
        return codes.clamp(-127, 127)


def encoders(scales: Scales, seed: int, *, cuts: bool = False) -> LinearEncoders:
    """The encoders of one linear: weights and activations to nearest, gradients stochastically.

    Args:
        scales: what shares a scale.
        seed: of the gradients' draws.
        cuts: cut activations and gradients off in place of rounding them.
    """
    weight = FakeInt8(scales)
    activation = FakeInt8(scales, cuts=cuts)
    gradient = FakeInt8(scales, torch.Generator().manual_seed(seed), cuts=cuts)
    return LinearEncoders(
        forward=Operands(activation, weight),
        input_grad=Operands(gradient, weight),
        weight_grad=Operands(gradient, activation),
    )
