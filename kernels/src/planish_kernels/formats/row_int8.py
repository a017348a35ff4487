"""INT8 rows: codes from -127 to 127, one scale a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planish_kernels.cusparselt import layout
from planish_kernels.cusparselt.int8 import int8_products_work
from planish_kernels.formats.format import Format, Operand, decode
from planish_kernels.formats.sparse24 import Sparse24, compact
from planish_kernels.formats.sparse24_cusparselt import Sparse24CuSparseLt
from planish_kernels.mask24.bits import pack_mask, unpack_mask
from planish_kernels.runtime.support import Support
from planish_kernels.runtime.tracing import constant_while_tracing


@dataclass(frozen=True, eq=False)
class RowInt8(Format):
    """A matrix of int8 codes with one float32 scale for each row: entry = code * scale of its row.

    What a matmul that sums codes over the whole of a row in INT32 can take, as sparse tensor cores do: the scale of a
    row leaves the sum. A square block has another scale every few columns, which would have to stay inside.

    Attributes:
        values: the codes, int8 ``[rows, cols]``: a dense tensor, or a 2:4 format of int8 (``Sparse24``,
            ``Sparse24CuSparseLt``).
        scales: float32 ``[rows]``, positive, or NaN for a row that was not finite. At most 17 significant bits, so that
            a code times its scale is exact in float32.
        decoded_dtype: the dtype of the decoded matrix.

    The constructor trusts its fields; ``encode`` and ``encode24`` make them.
    """

    values: Operand
    scales: Tensor
    decoded_dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        """``[rows, cols]``."""
        return self.values.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the decoded matrix."""
        return self.decoded_dtype

    @classmethod
    def encode(
        cls,
        dense: Tensor,
        rounding: str = "nearest",
        seed: int | Tensor = 0,
        offset: int | Tensor = 0,
        *,
        impl: str = "auto",
    ) -> RowInt8:
        """Encode a dense matrix; see ``planish_kernels.row_quantize.row_quantize`` for arguments and errors."""
        from planish_kernels.row_quantize import row_quantize

        codes, scales = row_quantize(dense, rounding, seed, offset, impl=impl)
        return cls(codes, scales, dense.dtype)

    @classmethod
    def encode24(
        cls, weight: Tensor, mask: Tensor, *, both_ways: bool, dtype: torch.dtype | None = None
    ) -> tuple[RowInt8, RowInt8 | None]:
        """Encode a 2:4 weight for the products that a linear layer has with it, to nearest.

        Packed for cuSPARSELt where its INT8 products run (see ``why_not_packed``), else as ``Sparse24``.

        Args:
            weight: float ``[rows, cols]``, any strides.
            mask: packed bits, uint8 ``[rows, ceil(cols / 8)]`` as ``pack_mask`` gives them, at most two of each four
                along a row, and for ``both_ways`` along a column; trusted.
            both_ways: whether to encode the transpose as well.
            dtype: the dtype that the operands stand for; default the weight's.

        Returns:
            ``[rows, cols]``, a scale for each row; and the transpose ``[cols, rows]``, a scale for each column of
            ``weight``, or None.
        """
        dtype = weight.dtype if dtype is None else dtype
        rows, cols = weight.shape
        weight = weight.detach()
        if not why_not_packed(rows, cols, weight.device):
            from planish_kernels.row_pack24 import row_pack24

            by_rows, row_scales, by_cols, col_scales = row_pack24(weight, mask, both_ways=both_ways)
            forward = cls(Sparse24CuSparseLt.of(by_rows, rows, cols), row_scales, dtype)
            return forward, cls(Sparse24CuSparseLt.of(by_cols, cols, rows), col_scales, dtype) if both_ways else None
        kept = unpack_mask(mask, cols)
        forward = _encode_kept(weight, kept, mask, dtype)
        return forward, _encode_kept(weight.t(), kept.t(), pack_mask(kept.t()), dtype) if both_ways else None

    def decode(self) -> Tensor:
        """``values * scales`` in float32 (float64 for float64), where it is exact, then in ``dtype``."""
        compute = torch.float64 if self.decoded_dtype is torch.float64 else torch.float32
        return (decode(self.values).to(compute) * self.scales.to(compute)[:, None]).to(self.decoded_dtype)

    def with_values(self, values: Operand) -> RowInt8:
        """The same scales with other codes of this shape, or the same codes in another format.

        Raises:
            ValueError: the shape or dtype is another.
        """
        if tuple(values.shape) != tuple(self.values.shape) or values.dtype is not torch.int8:
            raise ValueError(
                f"values are {values.dtype} {tuple(values.shape)}, expected torch.int8 {tuple(self.values.shape)}"
            )
        return replace(self, values=values)


def why_not_packed(rows: int, cols: int, device: torch.device) -> str:
    """Why a 2:4 weight ``[rows, cols]`` on ``device`` is not packed for sparse tensor cores; empty if it is."""
    return _packing_refusal(rows, cols, device)


@constant_while_tracing
def _packing_refusal(rows: int, cols: int, device: torch.device) -> str:
    support: Support = int8_products_work(device) and layout.check_shape(rows, cols, torch.int8)
    return support.reason


def _encode_kept(weight: Tensor, kept: Tensor, bits: Tensor, dtype: torch.dtype) -> RowInt8:
    from planish_kernels.row_quantize import row_quantize

    codes, scales = row_quantize(torch.where(kept, weight, 0))
    return RowInt8(Sparse24(compact(codes, kept), bits), scales, dtype)
