"""Blocks with one scale each: what ``BlockInt8`` and ``BlockFloat8`` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from planish_kernels.formats.format import Format

BLOCKS = (16, 32, 64, 128)
"""Sides that a block can have."""


@dataclass(frozen=True, eq=False)
class BlockScaled(Format):
    """A matrix of small numbers with one float32 scale for each square block: entry = code * scale of its block.

    A square block serves a matrix and its transpose alike, and confines an outlier of either its row or its column.

    Attributes:
        codes: ``[rows, cols]`` in ``code_dtype``.
        scales: float32 ``[ceil(rows / block), ceil(cols / block)]``, positive, or NaN for a block that was not finite.
            At most 17 significant bits, so that a code times its scale is exact in float32.
        block: the side of a block, one of 16, 32, 64, 128.
        decoded_dtype: the dtype of the decoded matrix.

    The constructor trusts its fields; ``planish_kernels.block_quantize`` makes them.

    Source: Xi, Chen, Zhao, Zheng, Chen, Zhu, "Jetfire: Efficient and Accurate Transformer Pretraining with INT8 Data
    Flow and Per-Block Quantization", ICML 2024 (arXiv 2403.12422), section 4.
    """

    codes: Tensor
    scales: Tensor
    block: int
    decoded_dtype: torch.dtype = torch.float32

    code_dtype: ClassVar[torch.dtype]
    largest: ClassVar[float]
    """The largest code: the scale of a block is its largest magnitude over this."""

    @property
    def shape(self) -> torch.Size:
        """``[rows, cols]``."""
        return self.codes.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the decoded matrix."""
        return self.decoded_dtype

    @classmethod
    def encode(
        cls,
        dense: Tensor,
        block: int = 32,
        rounding: str = "nearest",
        seed: int | Tensor = 0,
        offset: int | Tensor = 0,
        *,
        impl: str = "auto",
    ) -> Self:
        """Encode a dense matrix; see ``planish_kernels.block_quantize.block_quantize`` for arguments and errors."""
        from planish_kernels.block_quantize import block_quantize

        codes, scales = block_quantize(dense.detach(), cls.code_dtype, block, rounding, seed, offset, impl=impl)
        return cls(codes, scales, block, dense.dtype)

    @classmethod
    def encode_joined(
        cls,
        parts: Sequence[Tensor],
        dim: int,
        block: int = 32,
        rounding: str = "nearest",
        seed: int | Tensor = 0,
        offset: int | Tensor = 0,
        *,
        impl: str = "auto",
    ) -> Self:
        """Encode several matrices as one; see ``planish_kernels.block_quantize.block_quantize_joined``."""
        from planish_kernels.block_quantize import block_quantize_joined

        joined = block_quantize_joined(parts, dim, cls.code_dtype, block, rounding, seed, offset, impl=impl)
        return cls(*joined, block, parts[0].dtype)

    def decode(self) -> Tensor:
        """``codes * scales`` in float32 (float64 for float64), where it is exact, then in ``dtype``."""
        compute = torch.float64 if self.decoded_dtype is torch.float64 else torch.float32
        return decoded(self.codes, self.scales, self.block, compute).to(self.decoded_dtype)


def decoded(codes: Tensor, scales: Tensor, block: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """``codes * scales``, ``[rows, cols]`` in ``dtype``; exact in float32 and float64."""
    rows, cols = codes.shape
    wide = scales.repeat_interleave(block, 0)[:rows].repeat_interleave(block, 1)[:, :cols]
    return codes.to(dtype) * wide.to(dtype)


def require_row_major(name: str, operand: object, like: BlockScaled | None = None) -> None:
    """Check what operators on scaled blocks take: row-major codes and scales, and two operands that agree.

    Raises:
        TypeError: the operand is no block-scaled format.
        ValueError: it is transposed or strided, or differs from ``like`` in format, block or shape.
    """
    if not isinstance(operand, BlockScaled):
        raise TypeError(f"{name} is a {type(operand).__name__}: encode it as BlockInt8 or BlockFloat8")
    if like is not None and (
        type(operand) is not type(like) or operand.block != like.block or operand.shape != like.shape
    ):
        raise ValueError(
            f"{name} is {type(operand).__name__} {tuple(operand.shape)} with blocks of {operand.block}, x is "
            f"{type(like).__name__} {tuple(like.shape)} with blocks of {like.block}: they must agree"
        )
    if not operand.codes.is_contiguous() or not operand.scales.is_contiguous():
        raise ValueError(f"codes or scales of {name} are no row-major matrix: call .apply(torch.Tensor.contiguous)")
