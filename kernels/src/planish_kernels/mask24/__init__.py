"""2:4 masks: the exact transposable search, row-wise masks, packing to bits, and counting flips."""

from planish_kernels.mask24.bits import pack_mask, unpack_mask
from planish_kernels.mask24.op import (
    flip_count,
    rowwise_mask,
    rowwise_mask_bits,
    transposable_mask,
    transposable_mask_bits,
)

__all__ = [
    "flip_count",
    "pack_mask",
    "rowwise_mask",
    "rowwise_mask_bits",
    "transposable_mask",
    "transposable_mask_bits",
    "unpack_mask",
]
