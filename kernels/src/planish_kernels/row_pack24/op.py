"""The operator ``row_pack24``."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_quantize.op import KERNEL_DTYPES
from planish_kernels.cusparselt import layout
from planish_kernels.cusparselt.int8 import int8_packer_works, int8_products_work
from planish_kernels.cusparselt.op import layout_verified
from planish_kernels.row_pack24.reference import quantized24, row_pack24_reference
from planish_kernels.runtime.capability import cusparselt_available, interpreting, triton_available
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import YES, Support, no

row_pack24_op = Op("row_pack24", "2:4 weights as INT8 by rows into cuSPARSELt's layout, in one or both orientations")


def _triton_supports(weight: Tensor, mask: Tensor, both_ways: bool) -> Support:
    if weight.dtype not in KERNEL_DTYPES:
        return no(f"it reads float32, bfloat16 and float16, not {weight.dtype}")
    if weight.device.type == "cpu":
        return YES if interpreting() else no("Triton runs on CUDA tensors, this one is on cpu", worth_warning=False)
    return int8_packer_works(weight.device)


def _on_library(weight: Tensor, mask: Tensor, both_ways: bool) -> Support:
    return int8_products_work(weight.device)


@row_pack24_op.implement("triton", available=triton_available, supports=_triton_supports)
def _(weight: Tensor, mask: Tensor, both_ways: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from planish_kernels.row_pack24.triton import row_pack24_triton

    return row_pack24_triton(weight, mask, both_ways)


@row_pack24_op.implement("cusparselt", available=cusparselt_available, supports=_on_library)
def _(weight: Tensor, mask: Tensor, both_ways: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from planish_kernels.cusparselt.multiply import compress
    from planish_kernels.mask24.bits import unpack_mask

    kept = unpack_mask(mask, weight.shape[1])
    codes, scales = quantized24(weight, kept)
    if not both_ways:
        return compress(codes), scales, codes.new_empty(0), scales.new_empty(0)
    col_codes, col_scales = quantized24(weight.t(), kept.t())
    return compress(codes), scales, compress(col_codes), col_scales


@row_pack24_op.implement("reference")
def _(weight: Tensor, mask: Tensor, both_ways: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return row_pack24_reference(weight, mask, both_ways)


@torch.library.custom_op("planish::row_pack24", mutates_args=())
def _row_pack24(weight: Tensor, mask: Tensor, both_ways: bool, impl: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if impl == "auto" and not layout_verified(weight.device):
        impl = "cusparselt"  # on a GPU whose layout is unknown, only the library itself packs
    return row_pack24_op.dispatch(impl, weight, mask, both_ways)


@_row_pack24.register_fake
def _(weight: Tensor, mask: Tensor, both_ways: bool, impl: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, cols = weight.shape
    numel = layout.packed_numel(rows, cols, torch.int8)
    return (
        weight.new_empty(numel, dtype=torch.int8),
        weight.new_empty(rows, dtype=torch.float32),
        weight.new_empty(numel if both_ways else 0, dtype=torch.int8),
        weight.new_empty(cols if both_ways else 0, dtype=torch.float32),
    )


def row_pack24(
    weight: Tensor, mask: Tensor, *, both_ways: bool = True, impl: str = "auto"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Quantize a 2:4 weight with one scale for each row, and its transpose likewise, into packed INT8 buffers.

    Scales and codes are those of ``row_quantize`` on the masked weight, to nearest, and on its transpose: a weight has
    two quantizations, since a scale that changes along what a matmul sums over cannot be taken out of an INT32 sum.

    Args:
        weight: float ``[rows, cols]``, both multiples of 64, any strides.
        mask: packed bits, uint8 ``[rows, cols / 8]`` as ``pack_mask`` gives them; at most two of four consecutive
            entries along a row, and for ``both_ways`` along a column too, which is not checked.
        both_ways: whether to pack the transpose too.
        impl: a backend by name, or ``"auto"``.

    Returns:
        packed codes int8 ``[packed_numel(rows, cols)]`` and scales float32 ``[rows]`` by rows; packed codes and scales
        ``[cols]`` of the transpose, or empty tensors.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected two dimensions [rows, cols]")
    if not weight.is_floating_point():
        raise TypeError(f"weight has dtype {weight.dtype}, expected a floating-point dtype")
    rows, cols = weight.shape
    support = layout.check_shape(rows, cols, torch.int8)
    if not support:
        raise ValueError(f"weight: {support.reason}")
    if mask.dtype is not torch.uint8 or tuple(mask.shape) != (rows, cols // 8):
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}, expected packed bits, uint8 ({rows}, {cols // 8})")
    return _row_pack24(weight.detach(), mask.contiguous(), both_ways, impl)
