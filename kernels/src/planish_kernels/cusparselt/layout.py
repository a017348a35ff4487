"""cuSPARSELt's compressed layout on Hopper, as plain tensor permutations.

A compressed ``[rows, cols]`` matrix is one buffer: first the kept values, row-major ``[rows, cols / 2]``, then four
bits of metadata for each group of four columns, *code* = place of the first kept entry + 4 · place of the second. The
codes do not lie in the order of the groups. They go in blocks of 64 rows × 64 columns (512 bytes), the blocks of one
row of blocks after each other; inside a block the codes are ordered, from the slowest index to the fastest, as

* 16-bit values: half of the 64 columns, row / 16, row mod 8, group mod 4, (group / 4) mod 2, (row / 8) mod 2;
* 8-bit values: row / 16, row mod 8, (group / 2) mod 4, group / 8, (row / 8) mod 2, group mod 2.

Two rows that are eight apart share a byte, as the registers of ``wgmma.sp`` want them. cuSPARSELt documents none of
this: it was read off ``cusparseLtSpMMACompress2`` of version 0.8.0 on an H200, with matrices that mark one bit of one
index each. The layout of Ampere GPUs, which ``torch._sparse_semi_structured_tile(use_cutlass=False)`` writes, is
another; ``self_test.py`` tells them apart on the device before the fast path is used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.runtime.support import YES, Support, no

#: Rows and columns of a block of metadata: both dimensions of a packed matrix are multiples of it.
BLOCK = 64

#: ``(major, minor)`` of the library versions on which this layout was verified, all on compute capability 9.0.
VERIFIED_VERSIONS = ((0, 8),)

DTYPES = (torch.bfloat16, torch.float16, torch.int8)

# The code of each four-bit mask (bit i: place i is kept). A mask of fewer than two places is filled up, with value
# zero, as the library does: {} and {3} become {2, 3}; {0}, {1} and {2} get 3 besides. Larger masks have no code.
_CODE_OF_MASK = (14, 12, 13, 4, 14, 8, 9, 0, 14, 12, 13, 0, 14, 0, 0, 0)

# Sizes of the split indices of the codes [rows, groups], and the order in which a block stores them.
_SPLIT = {2: ((4, 2, 8), (2, 2, 4)), 1: ((4, 2, 8), (2, 4, 2))}
_ORDER = {2: (0, 4, 5, 1, 3, 7, 6, 2), 1: (0, 4, 1, 3, 6, 5, 2, 7)}


def check_shape(rows: int, cols: int, dtype: torch.dtype) -> Support:
    """Whether a ``[rows, cols]`` matrix of ``dtype`` can be packed: both multiples of 64, bfloat16, float16 or int8."""
    if dtype not in DTYPES:
        return no(f"dtype {dtype} cannot be packed: use bfloat16, float16 or int8")
    if rows <= 0 or cols <= 0 or rows % BLOCK or cols % BLOCK:
        return no(f"shape ({rows}, {cols}): cuSPARSELt's packed layout needs multiples of {BLOCK}")
    return YES


def packed_numel(rows: int, cols: int, dtype: torch.dtype) -> int:
    """Elements of ``dtype`` in the packed buffer: 9/16 of the dense matrix for 16-bit values, 10/16 for 8-bit ones."""
    return rows * cols // 2 + rows * cols // 8 // dtype.itemsize


def pack(dense: Tensor, mask: Tensor) -> Tensor:
    """The packed buffer of ``dense`` where ``mask``: one-dimensional, of ``packed_numel`` elements.

    Args:
        dense: ``[rows, cols]`` of a dtype and shape that ``check_shape`` accepts.
        mask: bool ``[rows, cols]`` with at most two places in each group of four columns.
    """
    rows, cols = dense.shape
    kept = mask.reshape(rows, cols // 4, 4)
    places = torch.arange(4, dtype=torch.uint8, device=dense.device)
    number = (kept.to(torch.uint8) << places).sum(-1, dtype=torch.int64)
    codes = torch.tensor(_CODE_OF_MASK, dtype=torch.uint8, device=dense.device)[number]
    groups = torch.where(mask, dense, torch.zeros((), dtype=dense.dtype, device=dense.device)).reshape(kept.shape)
    values = groups.gather(-1, torch.stack((codes & 3, codes >> 2), dim=-1).long())
    return join(values.reshape(rows, cols // 2), codes)


def join(values: Tensor, codes: Tensor) -> Tensor:
    """One buffer of values ``[rows, cols / 2]`` and codes, uint8 ``[rows, cols / 4]``."""
    metadata = _permute_codes(codes, values.dtype.itemsize)
    return torch.cat((values.contiguous().reshape(-1), metadata.view(values.dtype)))


def split(packed: Tensor, rows: int, cols: int) -> tuple[Tensor, Tensor]:
    """Values ``[rows, cols / 2]`` and codes, uint8 ``[rows, cols / 4]``, of a packed buffer."""
    values = packed[: rows * cols // 2].reshape(rows, cols // 2)
    metadata = packed[rows * cols // 2 :].contiguous().view(torch.uint8)
    nibbles = torch.stack((metadata & 15, metadata >> 4), dim=-1)
    (r45, r3, r012), (g_high, g_middle, g_low) = _SPLIT[packed.dtype.itemsize]
    sizes = (rows // BLOCK, r45, r3, r012, cols // BLOCK, g_high, g_middle, g_low)
    order = _ORDER[packed.dtype.itemsize]
    stored = nibbles.reshape([sizes[axis] for axis in order])
    inverse = [order.index(axis) for axis in range(len(order))]
    return values, stored.permute(inverse).reshape(rows, cols // 4)


def unpack(packed: Tensor, rows: int, cols: int) -> Tensor:
    """The dense ``[rows, cols]`` matrix of a packed buffer."""
    values, codes = split(packed, rows, cols)
    places = torch.stack((codes & 3, codes >> 2), dim=-1).long()
    dense = torch.zeros(rows, cols // 4, 4, dtype=packed.dtype, device=packed.device)
    return dense.scatter_(-1, places, values.reshape(rows, cols // 4, 2)).reshape(rows, cols)


def _permute_codes(codes: Tensor, itemsize: int) -> Tensor:
    """Codes ``[rows, groups]`` as the metadata bytes of the buffer."""
    rows, groups = codes.shape
    (r45, r3, r012), (g_high, g_middle, g_low) = _SPLIT[itemsize]
    split_codes = codes.reshape(rows // BLOCK, r45, r3, r012, groups * 4 // BLOCK, g_high, g_middle, g_low)
    nibbles = split_codes.permute(_ORDER[itemsize]).reshape(-1, 2)
    return nibbles[:, 0] | (nibbles[:, 1] << 4)
