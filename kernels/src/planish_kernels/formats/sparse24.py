"""2:4 sparsity: of every four consecutive entries along a row at most two are kept (NVIDIA's structured sparsity)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planish_kernels.formats.format import Format, Operand, decode
from planish_kernels.mask24.bits import pack_mask, unpack_mask


@dataclass(frozen=True, eq=False)
class Sparse24(Format):
    """A ``[rows, cols]`` matrix with at most two kept entries in each group of four along the last dimension.

    Attributes:
        values: the kept entries, ``[rows, cols / 2]``: two slots for each group, in the order of their columns. A group
            that keeps one entry has it in the first slot. A dense tensor or a nested format.
        mask: which entries are kept, uint8 ``[rows, ceil(cols / 8)]`` as ``pack_mask`` packs it.

    The constructor trusts its fields (a check would wait for the GPU); ``encode`` checks.
    """

    values: Operand
    mask: Tensor

    @property
    def shape(self) -> torch.Size:
        """``[rows, cols]``."""
        rows, half = self.values.shape
        return torch.Size((rows, half * 2))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where the mask lives."""
        return self.mask.device

    @classmethod
    def encode(cls, dense: Tensor, mask: Tensor | None = None, dim: int = 1, *, trust_mask: bool = False) -> Format:
        """Encode ``dense`` with groups of four along ``dim``.

        Args:
            dense: ``[rows, cols]`` of any dtype and strides; the size of ``dim`` is a multiple of 4.
            mask: bool, the shape of ``dense``: the entries to keep, at most two of each group. None keeps the two
                largest magnitudes of each group (of equals the lowest index; NaN counts as infinite, so that it shows).
            dim: 1, or 0 to group along columns: then ``dense.T`` is packed and its transpose returned, so that the
                shape is that of ``dense``.
            trust_mask: skip the check of ``mask``, which on a GPU waits for the device.

        Returns:
            ``Sparse24`` for dim 1, ``Transposed(Sparse24)`` for dim 0.

        Raises:
            ValueError: a shape does not fit, or a group of ``mask`` keeps more than two.
            TypeError: ``mask`` is not boolean.
        """
        if dense.dim() != 2:
            raise ValueError(f"dense has shape {tuple(dense.shape)}, Sparse24 takes [rows, cols]: flatten it first")
        if dim not in (0, 1, -1, -2):
            raise ValueError(f"dim={dim} of a two-dimensional matrix: use 0 or 1")
        if mask is not None:
            if mask.dtype is not torch.bool:
                raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool: compare first, as in mask != 0")
            if mask.shape != dense.shape:
                raise ValueError(f"mask has shape {tuple(mask.shape)}, dense has {tuple(dense.shape)}: make them equal")
        if dim in (0, -2):
            return cls.encode(dense.t(), None if mask is None else mask.t(), trust_mask=trust_mask).T
        rows, cols = dense.shape
        if cols % 4:
            raise ValueError(f"the grouped dimension has size {cols}, Sparse24 needs a multiple of 4: pad with zeros")
        dense = dense.detach()
        if mask is None:
            mask = two_largest(dense)
        elif not trust_mask:
            kept = mask.reshape(rows, cols // 4, 4).sum(-1)
            if bool((kept > 2).any()):
                group = (kept > 2).nonzero()[0].tolist()
                raise ValueError(
                    f"mask is not 2:4: row {group[0]}, entries {4 * group[1]} to {4 * group[1] + 3} along dim "
                    f"keep {int(kept[tuple(group)])} of 4: keep at most 2"
                )
        return cls(compact(dense, mask), pack_mask(mask))

    def decode(self) -> Tensor:
        """The dense matrix: kept entries in place, zeros elsewhere."""
        rows, cols = self.shape
        first, second = decode(self.values).reshape(rows, cols // 4, 2).unbind(-1)
        m0, m1, m2, m3 = self.dense_mask().reshape(rows, cols // 4, 4).unbind(-1)
        zero = torch.zeros((), dtype=self.dtype, device=first.device)
        # An entry sits in the second slot exactly where its group keeps an earlier one.
        entries = (
            torch.where(m0, first, zero),
            torch.where(m1, torch.where(m0, second, first), zero),
            torch.where(m2, torch.where(m0 | m1, second, first), zero),
            torch.where(m3, torch.where(m0 | m1 | m2, second, first), zero),
        )
        return torch.stack(entries, dim=-1).reshape(rows, cols)

    def dense_mask(self) -> Tensor:
        """The mask as bool ``[rows, cols]``."""
        return unpack_mask(self.mask, self.shape[1])

    def with_values(self, values: Operand) -> Sparse24:
        """The same pattern with other values, ``[rows, cols / 2]``, dense or encoded.

        Raises:
            ValueError: the shape is another.
        """
        if tuple(values.shape) != tuple(self.values.shape):
            raise ValueError(f"values have shape {tuple(values.shape)}, this pattern has {tuple(self.values.shape)}")
        return replace(self, values=values)


def two_largest(dense: Tensor) -> Tensor:
    """The row-wise 2:4 mask of largest magnitude: bool ``[rows, cols]``; of equals the lowest index is kept.

    NaN counts as infinite. ``cols`` must be a multiple of 4.
    """
    rows, cols = dense.shape
    magnitude = dense.abs()
    if dense.is_floating_point():
        magnitude = torch.where(magnitude.isnan(), torch.inf, magnitude)
    a = magnitude.reshape(rows, cols // 4, 4).unbind(-1)
    kept = []
    for i in range(4):
        # How many go before entry i: those strictly larger, and equals of a lower index.
        before = torch.zeros_like(a[i], dtype=torch.uint8)
        for j in range(4):
            if j != i:
                before = before + ((a[j] >= a[i]) if j < i else (a[j] > a[i]))
        kept.append(before < 2)
    return torch.stack(kept, dim=-1).reshape(rows, cols)


def compact(dense: Tensor, mask: Tensor) -> Tensor:
    """The kept entries of each group of four, ``[rows, cols / 2]`` in the order of their columns, unused slots zero."""
    rows, cols = dense.shape
    d0, d1, d2, d3 = dense.reshape(rows, cols // 4, 4).unbind(-1)
    m0, m1, m2, m3 = mask.reshape(rows, cols // 4, 4).unbind(-1)
    zero = torch.zeros((), dtype=dense.dtype, device=dense.device)
    first = torch.where(m0, d0, torch.where(m1, d1, torch.where(m2, d2, torch.where(m3, d3, zero))))
    second = torch.where(m3 & (m0 | m1 | m2), d3, torch.where(m2 & (m0 | m1), d2, torch.where(m1 & m0, d1, zero)))
    return torch.stack((first, second), dim=-1).reshape(rows, cols // 2)
