"""Masks at one bit a weight: eight columns to a byte, the lowest column in the lowest bit."""

from __future__ import annotations

import torch
from torch import Tensor


def pack_mask(mask: Tensor) -> Tensor:
    """Pack a boolean mask: bit ``c % 8`` of ``bits[r, c // 8]`` is ``mask[r, c]``; the spare bits of a row are zero.

    Args:
        mask: bool ``[rows, cols]``, any strides.

    Returns:
        uint8 ``[rows, ceil(cols / 8)]``, contiguous.

    Raises:
        ValueError: the mask is not two-dimensional.
        TypeError: it is not boolean.
    """
    if mask.dtype is not torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}, expected torch.bool: compare first, as in mask != 0")
    if mask.dim() != 2:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected two dimensions [rows, cols]: flatten it first")
    rows, cols = mask.shape
    octets = torch.nn.functional.pad(mask.to(torch.uint8), (0, -cols % 8)).view(rows, (cols + 7) // 8, 8)
    bits = octets[..., 0].clone()
    for place in range(1, 8):
        bits |= octets[..., place] << place
    return bits


def unpack_mask(bits: Tensor, cols: int) -> Tensor:
    """The boolean mask ``[rows, cols]`` that ``pack_mask`` packed.

    Args:
        bits: uint8 ``[rows, ceil(cols / 8)]``, any strides.
        cols: the number of columns before packing.

    Raises:
        ValueError: ``bits`` is not two-dimensional, or its width does not fit ``cols``.
        TypeError: it is not uint8.
    """
    if bits.dtype is not torch.uint8:
        raise TypeError(f"bits has dtype {bits.dtype}, expected torch.uint8 as pack_mask returns")
    if bits.dim() != 2 or bits.shape[1] != (cols + 7) // 8:
        expected = f"[rows, {(cols + 7) // 8}]"
        raise ValueError(f"bits has shape {tuple(bits.shape)}, expected {expected} for cols={cols}")
    if bits.device.type != "cpu" or torch.compiler.is_compiling():
        # A compiler fuses this into whatever reads the mask; it cannot look at bytes as booleans, as below.
        places = torch.arange(8, dtype=torch.uint8, device=bits.device)
        mask = (bits.unsqueeze(-1) >> places) & 1
        return mask.reshape(bits.shape[0], bits.shape[1] * 8)[:, :cols].to(torch.bool)
    # A byte's eight booleans are looked up as one 64-bit word: far quicker on CPUs than shifting bytes.
    values = torch.arange(256, device=bits.device).unsqueeze(1) >> torch.arange(8, device=bits.device)
    words = (values & 1).to(torch.uint8).view(torch.int64).view(256)
    mask = words.index_select(0, bits.reshape(-1).to(torch.int32)).view(torch.bool)
    return mask.view(bits.shape[0], bits.shape[1] * 8)[:, :cols]
