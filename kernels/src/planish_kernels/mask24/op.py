"""The operators ``transposable_mask``, ``rowwise_mask`` and ``flip_count``."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.mask24.bits import pack_mask, unpack_mask
from planish_kernels.mask24.reference import (
    flip_count_reference,
    rowwise_mask_reference,
    transposable_mask_reference,
)
from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import YES, Support, no

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

transposable_mask_op = Op("transposable_mask", "the best 4x4 pattern, 2:4 along rows and columns, of ninety")
rowwise_mask_op = Op("rowwise_mask", "the two largest magnitudes of every four columns")
flip_count_op = Op("flip_count", "the number of mask bits that changed")


def _adds_in_float32(weight: Tensor) -> Support:
    if weight.dtype in KERNEL_DTYPES:
        return YES
    return no(f"it adds in float32, weight is {weight.dtype}: use float32, float16 or bfloat16")


def _triton_supports(weight: Tensor, packed: bool) -> Support:
    return _adds_in_float32(weight) and triton_runs_on(weight.device)


def _on_cpu(weight: Tensor, packed: bool) -> Support:
    if weight.device.type != "cpu":
        return no(f"weight is on {weight.device.type}, this is for CPUs", worth_warning=False)
    support = _adds_in_float32(weight)
    return support if support else support._replace(worth_warning=False)


@transposable_mask_op.implement("triton", supports=_triton_supports)
def _(weight: Tensor, packed: bool) -> Tensor:
    from planish_kernels.mask24.triton import transposable_mask_triton

    return transposable_mask_triton(weight, packed)


@transposable_mask_op.implement("cpu", supports=_on_cpu)
def _(weight: Tensor, packed: bool) -> Tensor:
    from planish_kernels.mask24.separable import transposable_bits_separable

    bits = transposable_bits_separable(weight)
    return bits if packed else unpack_mask(bits, weight.shape[1]).contiguous()


@transposable_mask_op.implement("reference")
def _(weight: Tensor, packed: bool) -> Tensor:
    mask = transposable_mask_reference(weight)
    return pack_mask(mask) if packed else mask


@rowwise_mask_op.implement("triton", supports=_triton_supports)
def _(weight: Tensor, packed: bool) -> Tensor:
    from planish_kernels.mask24.triton import rowwise_mask_triton

    return rowwise_mask_triton(weight, packed)


@rowwise_mask_op.implement("cpu", supports=_on_cpu)
def _(weight: Tensor, packed: bool) -> Tensor:
    from planish_kernels.mask24.separable import rowwise_bits_separable

    bits = rowwise_bits_separable(weight)
    return bits if packed else unpack_mask(bits, weight.shape[1]).contiguous()


@rowwise_mask_op.implement("reference")
def _(weight: Tensor, packed: bool) -> Tensor:
    mask = rowwise_mask_reference(weight)
    return pack_mask(mask) if packed else mask


@flip_count_op.implement("triton", supports=lambda bits, other_bits: triton_runs_on(bits.device))
def _(bits: Tensor, other_bits: Tensor) -> Tensor:
    from planish_kernels.mask24.triton import flip_count_triton

    return flip_count_triton(bits, other_bits)


@flip_count_op.implement("reference")
def _(bits: Tensor, other_bits: Tensor) -> Tensor:
    return flip_count_reference(bits, other_bits)


def _empty_mask(weight: Tensor, packed: bool) -> Tensor:
    rows, cols = weight.shape
    if packed:
        return weight.new_empty((rows, (cols + 7) // 8), dtype=torch.uint8)
    return weight.new_empty((rows, cols), dtype=torch.bool)


@torch.library.custom_op("planish::transposable_mask", mutates_args=())
def _transposable_mask(weight: Tensor, packed: bool, impl: str) -> Tensor:
    return transposable_mask_op.dispatch(impl, weight, packed)


@_transposable_mask.register_fake
def _(weight: Tensor, packed: bool, impl: str) -> Tensor:
    return _empty_mask(weight, packed)


@torch.library.custom_op("planish::rowwise_mask", mutates_args=())
def _rowwise_mask(weight: Tensor, packed: bool, impl: str) -> Tensor:
    return rowwise_mask_op.dispatch(impl, weight, packed)


@_rowwise_mask.register_fake
def _(weight: Tensor, packed: bool, impl: str) -> Tensor:
    return _empty_mask(weight, packed)


@torch.library.custom_op("planish::flip_count", mutates_args=())
def _flip_count(bits: Tensor, other_bits: Tensor, impl: str) -> Tensor:
    return flip_count_op.dispatch(impl, bits, other_bits)


@_flip_count.register_fake
def _(bits: Tensor, other_bits: Tensor, impl: str) -> Tensor:
    return bits.new_empty((), dtype=torch.int64)


def _check_weight(weight: Tensor, row_multiple: int) -> None:
    if weight.dim() != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected two dimensions [rows, cols]")
    if not weight.is_floating_point():
        raise TypeError(f"weight has dtype {weight.dtype}, expected a floating-point dtype")
    rows, cols = weight.shape
    if cols % 4:
        raise ValueError(f"weight has {cols} columns, expected a multiple of 4: leave this layer dense, or pad it")
    if rows % row_multiple:
        raise ValueError(
            f"weight has {rows} rows, expected a multiple of {row_multiple} for a transposable mask: "
            "leave this layer dense, or use rowwise_mask"
        )


def transposable_mask(weight: Tensor, *, impl: str = "auto") -> Tensor:
    """The mask that is 2:4 along rows and along columns and keeps the largest sum of magnitudes.

    Exact: in each 4x4 block the best of the ninety patterns with two ones in every row and column. Between patterns
    with equal sums the first in lexicographic order wins (rows from the top, each in the order 1100, 1010, 1001, 0110,
    0101, 0011). Kernels add in float32, in one fixed order on every device, so that two patterns whose sums differ by
    less than the rounding of eight float32 terms may change places; the reference adds in float64.

    The mask is 2:4 whatever the weight holds. An infinity outranks every number (where the sums of several patterns
    are infinite, any of those may be taken); a pattern that would keep a NaN is taken only if every pattern would, and
    then it is the first one.

    Args:
        weight: float16, bfloat16, float32 or (reference only) float64 ``[rows, cols]``, both multiples of 4, any
            strides.
        impl: a backend by name, or ``"auto"``.

    Returns:
        bool ``[rows, cols]``, contiguous.

    Raises:
        ValueError: another shape; the message names the multiple that is required.
        TypeError: not a floating-point dtype.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Hu et al., "Accelerating Transformer Pre-training with 2:4 Sparsity", ICML 2024, section 5. The search by
    parts, which needs 63 sums instead of 630, is described in ``separable.py``.
    """
    _check_weight(weight, 4)
    return _transposable_mask(weight.detach(), False, impl)


def transposable_mask_bits(weight: Tensor, *, impl: str = "auto") -> Tensor:
    """``pack_mask(transposable_mask(weight))`` in one pass: uint8 ``[rows, ceil(cols / 8)]``, one bit a weight."""
    _check_weight(weight, 4)
    return _transposable_mask(weight.detach(), True, impl)


def rowwise_mask(weight: Tensor, *, impl: str = "auto") -> Tensor:
    """The mask of the two largest magnitudes in every four columns; the lower column wins a tie.

    A NaN ranks below every number. Every group keeps exactly two places.

    Args:
        weight: floating-point ``[rows, cols]`` (float64: reference only), ``cols`` a multiple of 4, any strides.
        impl: a backend by name, or ``"auto"``.

    Returns:
        bool ``[rows, cols]``, contiguous.

    Raises:
        ValueError: another shape; the message names the multiple that is required.
        TypeError: not a floating-point dtype.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    _check_weight(weight, 1)
    return _rowwise_mask(weight.detach(), False, impl)


def rowwise_mask_bits(weight: Tensor, *, impl: str = "auto") -> Tensor:
    """``pack_mask(rowwise_mask(weight))`` in one pass: uint8 ``[rows, ceil(cols / 8)]``, one bit a weight."""
    _check_weight(weight, 1)
    return _rowwise_mask(weight.detach(), True, impl)


def flip_count(bits: Tensor, other_bits: Tensor, *, impl: str = "auto") -> Tensor:
    """How many bits of two packed masks differ; divided by the number of weights it is the flip rate.

    Args:
        bits: uint8, as ``pack_mask`` packs.
        other_bits: of the same shape, on the same device.
        impl: a backend by name, or ``"auto"``.

    Returns:
        A 0-d int64 tensor on their device (nothing is synchronised).

    Raises:
        ValueError, TypeError: shapes, devices or dtypes differ from that.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    if bits.dtype is not torch.uint8 or other_bits.dtype is not torch.uint8:
        raise TypeError(f"masks have dtypes {bits.dtype} and {other_bits.dtype}, expected torch.uint8: see pack_mask")
    if bits.shape != other_bits.shape or bits.device != other_bits.device:
        raise ValueError(
            f"masks differ: shapes {tuple(bits.shape)} and {tuple(other_bits.shape)} on {bits.device} and "
            f"{other_bits.device}; expected two packed masks of one weight"
        )
    return _flip_count(bits, other_bits, impl)
