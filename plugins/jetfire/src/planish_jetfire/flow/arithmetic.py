"""Products and sums of quantized tensors that the parts of a block share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from planish_kernels.block_matmul import block_matmul, block_matmul_quantized
from planish_kernels.formats.block_scaled import BlockScaled
from torch import Tensor

from planish_jetfire.weight_codes import WeightCodes, stacks


@dataclass(frozen=True)
class Arithmetic:
    """The format in which a block computes, and how it rounds gradients.

    Attributes:
        format: ``BlockInt8`` or ``BlockFloat8``.
        block: side of a block.
        rounding: of gradients.
    """

    format: type[BlockScaled]
    block: int
    rounding: str

    def nearest(self, dense: Tensor) -> BlockScaled:
        """A dense matrix in blocks, to nearest."""
        return self.format.encode(dense, self.block)

    def gradient(self, dense: Tensor, draw: Draw) -> BlockScaled:
        """A dense gradient in blocks."""
        return self.format.encode(dense, self.block, self.rounding, *draw)

    def gradients(self, parts: Sequence[Tensor], draw: Draw) -> BlockScaled:
        """Dense gradients side by side, in blocks: the first under ``draw``, each further one under the next offset."""
        return self.format.encode_joined(parts, 1, self.block, self.rounding, *draw)

    def product(self, a: Any, b: Any, draw: Draw) -> BlockScaled:
        """``a @ b`` of a gradient, in blocks."""
        return block_matmul_quantized(a, b, None, self.rounding, *draw)


class Draw(NamedTuple):
    """What one stochastic rounding depends on: int64 0-d tensors, or zeros where nothing is drawn."""

    seed: int | Tensor
    offset: int | Tensor


class Draws:
    """The draws of one backward pass, by number."""

    def __init__(self, seed: Tensor | None, offsets: Tensor | None) -> None:
        self.seed, self.offsets = seed, offsets

    def __getitem__(self, number: int) -> Draw:
        """The draw of one rounding; no two in a pass share a number."""
        if self.seed is None or self.offsets is None:
            return Draw(0, 0)
        return Draw(self.seed, self.offsets[number])


class Linear(NamedTuple):
    """A linear layer's parameters. ``weight`` is stored [out, in], or [in, out] where ``is_transposed``."""

    weight: Tensor
    bias: Tensor | None
    is_transposed: bool

    @property
    def logical(self) -> Tensor:
        """The weight as [out, in]: a view."""
        return self.weight.t() if self.is_transposed else self.weight

    def weight_grad(self, grad_output: BlockScaled, input: BlockScaled) -> Tensor:
        """The gradient of the weight, as it is stored, in its dtype."""
        a, b = (input.T, grad_output) if self.is_transposed else (grad_output.T, input)
        return block_matmul(a, b, out_dtype=self.weight.dtype)


def logical(linears: Sequence[Linear]) -> list[Tensor]:
    """The weights as [out, in]."""
    return [linear.logical for linear in linears]


def columns(quantized: BlockScaled, first: int, count: int) -> BlockScaled:
    """``count`` columns from ``first`` on, a multiple of the block: a view."""
    block = quantized.block
    scales = quantized.scales[:, first // block : -(-(first + count) // block)]
    return type(quantized)(quantized.codes[:, first : first + count], scales, block, quantized.dtype)


def side_by_side(parts: Sequence[BlockScaled]) -> BlockScaled | None:
    """Matrices of equal rows as one; None where a block would reach over the end of one. One stands for all already."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if not stacks([part.shape[1] for part in parts], first.block):
        return None
    codes = torch.cat([part.codes for part in parts], dim=1)
    scales = torch.cat([part.scales for part in parts], dim=1)
    return type(first)(codes, scales, first.block, first.dtype)


def input_grad(
    arithmetic: Arithmetic, grads: Sequence[BlockScaled], linears: Sequence[Linear], codes: WeightCodes, draw: Draw
) -> BlockScaled:
    """The gradient, in blocks, of what several linears multiply: the sum of ``grad @ weight``.

    Args:
        arithmetic: In which it is computed.
        grads: Of the outputs: one for each linear, or one of all side by side.
        linears: They.
        codes: Their quantized weights.
        draw: Of the rounding.
    """
    weights, dtype = logical(linears), grads[0].dtype
    wide, stack = side_by_side(grads), codes.stack(weights, dtype)
    if wide is not None and stack is not None:
        return arithmetic.product(wide, stack, draw)
    return arithmetic.gradient(dense_input_grad(grads, linears, codes, torch.float32), draw)


def dense_input_grad(
    grads: Sequence[BlockScaled], linears: Sequence[Linear], codes: WeightCodes, dtype: torch.dtype
) -> Tensor:
    """The same, dense, in ``dtype``."""
    weights = logical(linears)
    wide, stack = side_by_side(grads), codes.stack(weights, grads[0].dtype)
    if wide is not None and stack is not None:
        return block_matmul(wide, stack, out_dtype=dtype)
    pairs = zip(grads, codes.of(weights, grads[0].dtype), strict=True)
    products = [block_matmul(grad, weight, out_dtype=torch.float32) for grad, weight in pairs]
    return torch.stack(products).sum(0).to(dtype)


def dense(quantized: BlockScaled) -> Tensor:
    """What it decodes to, [rows, cols]: one pass where blocks divide the shape, without scales spread out in memory."""
    codes, block, dtype = quantized.codes, quantized.block, quantized.dtype
    rows, cols = codes.shape
    if codes.dtype is not torch.int8 or rows % block or cols % block or dtype is torch.float64:
        return quantized.decode()
    tiles = codes.view(rows // block, block, cols // block, block) * quantized.scales[:, None, :, None]
    return tiles.view(rows, cols).to(dtype)


def column_sums(quantized: BlockScaled, dtype: torch.dtype) -> Tensor:
    """The sum of each column, ``[cols]``: codes are summed within blocks before they are scaled."""
    codes, block = quantized.codes, quantized.block
    rows, cols = codes.shape
    if codes.dtype is not torch.int8:
        codes = codes.to(torch.float32)
    missing = -rows % block
    if missing:
        codes = torch.nn.functional.pad(codes, (0, 0, 0, missing))
    kind = torch.int32 if codes.dtype is torch.int8 else torch.float32
    sums = codes.view(-1, block, cols).sum(1, dtype=kind)
    return (sums * quantized.scales.repeat_interleave(block, 1)[:, :cols]).sum(0).to(dtype)
