"""2:4 sparsity in cuSPARSELt's own packed layout: what the sparse tensor cores of a Hopper GPU read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from planish_kernels.cusparselt import layout
from planish_kernels.cusparselt.op import layout_verified, mvue_pack, pack_, packed_multiply
from planish_kernels.formats.format import Format
from planish_kernels.mask24.bits import pack_mask


@dataclass(frozen=True, eq=False)
class Sparse24CuSparseLt(Format):
    """A ``[rows, cols]`` matrix with at most two kept entries in each group of four along the last dimension.

    The same content as ``Sparse24`` in one buffer of 9/16 the size of the dense matrix (16-bit values; 10/16 for int8),
    which ``matmul`` hands to cuSPARSELt as it is. Rows and columns are multiples of 64.

    Attributes:
        packed: the buffer, one-dimensional; see ``planish_kernels.cusparselt.layout``.
        rows, cols: the shape of the matrix.
        layout: ``"sm90"``, or ``"library"`` for a buffer of the library's own compressor on a GPU or version whose
            layout is not known; such a buffer only that library on that GPU can read.

    The constructor trusts its fields; ``encode`` checks.
    """

    packed: Tensor
    rows: int
    cols: int
    layout: str = "sm90"

    @property
    def shape(self) -> torch.Size:
        """``[rows, cols]``."""
        return torch.Size((self.rows, self.cols))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the values."""
        return self.packed.dtype

    @classmethod
    def of(cls, packed: Tensor, rows: int, cols: int) -> Sparse24CuSparseLt:
        """A buffer that ``pack_`` or ``mvue_pack`` filled on its present device."""
        return cls(packed, rows, cols, "sm90" if layout_verified(packed.device) else "library")

    @classmethod
    def encode(
        cls,
        dense: Tensor,
        mask: Tensor | None = None,
        dim: int = 1,
        *,
        trust_mask: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Format:
        """Encode ``dense`` with groups of four along ``dim``.

        Args:
            dense: ``[rows, cols]``, both multiples of 64; any strides.
            mask: bool, the shape of ``dense``: the entries to keep, at most two of each group. None keeps the two
                largest magnitudes of each group (of equals the lowest index; NaN counts as infinite).
            dim: 1, or 0 to group along columns: then ``dense.T`` is packed and its transpose returned.
            trust_mask: skip the check of ``mask``, which on a GPU waits for the device.
            dtype: of the values: bfloat16, float16 or int8; default the dtype of ``dense``.

        Returns:
            ``Sparse24CuSparseLt`` for dim 1, ``Transposed(Sparse24CuSparseLt)`` for dim 0.

        Raises:
            ValueError: a shape or dtype does not fit, or a group of ``mask`` keeps more than two.
            TypeError: ``mask`` is not boolean.
        """
        if dense.dim() != 2:
            raise ValueError(f"dense has shape {tuple(dense.shape)}, expected [rows, cols]: flatten it first")
        if dim not in (0, 1, -1, -2):
            raise ValueError(f"dim={dim} of a two-dimensional matrix: use 0 or 1")
        if mask is not None:
            if mask.dtype is not torch.bool:
                raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool: compare first, as in mask != 0")
            if mask.shape != dense.shape:
                raise ValueError(f"mask has shape {tuple(mask.shape)}, dense has {tuple(dense.shape)}: make them equal")
        if dim in (0, -2):
            return cls.encode(dense.t(), None if mask is None else mask.t(), trust_mask=trust_mask, dtype=dtype).T
        rows, cols = dense.shape
        dtype = dense.dtype if dtype is None else dtype
        support = layout.check_shape(rows, cols, dtype)
        if not support:
            raise ValueError(support.reason)
        if mask is not None and not trust_mask and bool((mask.reshape(rows, cols // 4, 4).sum(-1) > 2).any()):
            raise ValueError("mask is not 2:4: a group of four along dim keeps more than 2; keep at most 2")
        packed = torch.empty(layout.packed_numel(rows, cols, dtype), dtype=dtype, device=dense.device)
        pack_(dense, packed, mask=None if mask is None else pack_mask(mask))
        return cls.of(packed, rows, cols)

    @classmethod
    def encode_gradient(cls, grad: Tensor, seed: int | Tensor, offset: int | Tensor) -> Format:
        """The unbiased 2:4 estimate of ``grad [tokens, channels]`` along its tokens; see ``mvue_pack``.

        Returns:
            ``Transposed(Sparse24CuSparseLt)`` of shape ``[tokens filled up to a multiple of 64, channels]``.
        """
        tokens, channels = grad.shape
        padded = tokens + -tokens % layout.BLOCK
        return cls.of(mvue_pack(grad, seed, offset), channels, padded).T

    @classmethod
    def random(cls, rows: int, cols: int, *, dtype: torch.dtype, device: torch.device, seed: int) -> Format:
        """Normal numbers, encoded; ValueError where a shape or dtype has no packed form."""
        support = layout.check_shape(rows, cols, dtype)
        if not support:
            raise ValueError(support.reason)
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.randn(rows, cols, generator=generator)
        if dtype is torch.int8:
            numbers = (numbers * 40).round().clamp(-127, 127)
        return cls.encode(numbers.to(device, dtype))

    def decode(self) -> Tensor:
        """The dense matrix: kept entries in place, zeros elsewhere."""
        if self.layout == "sm90":
            return layout.unpack(self.packed, self.rows, self.cols)
        if self.packed.device.type != "cuda":
            raise ValueError(
                "this buffer was packed by cuSPARSELt on a GPU whose layout is not known, and left that GPU: decode it "
                "before moving it"
            )
        # Only the library can read it: the product with the identity is exact.
        identity = torch.eye(self.cols, dtype=self.dtype, device=self.packed.device)
        return packed_multiply(self.packed, self.rows, self.cols, identity, False)
