"""The operator ``row_rescale``."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.row_rescale.reference import row_rescale_reference
from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

row_rescale_op = Op("row_rescale", "a product of INT8 codes times the scales of its rows and columns")


def _triton_supports(product: Tensor, row_scales: Tensor, col_scales: Tensor, out_dtype: torch.dtype) -> Support:
    if out_dtype is torch.float64:
        return no("it computes in float32, float64 was asked for")
    return triton_runs_on(product.device)


@row_rescale_op.implement("triton", supports=_triton_supports)
def _(product: Tensor, row_scales: Tensor, col_scales: Tensor, out_dtype: torch.dtype) -> Tensor:
    from planish_kernels.row_rescale.triton import row_rescale_triton

    return row_rescale_triton(product.contiguous(), row_scales, col_scales, out_dtype)


@row_rescale_op.implement("reference")
def _(product: Tensor, row_scales: Tensor, col_scales: Tensor, out_dtype: torch.dtype) -> Tensor:
    return row_rescale_reference(product, row_scales, col_scales, out_dtype)


@torch.library.custom_op("planish::row_rescale", mutates_args=())
def _row_rescale(product: Tensor, row_scales: Tensor, col_scales: Tensor, out_dtype: torch.dtype, impl: str) -> Tensor:
    return row_rescale_op.dispatch(impl, product, row_scales, col_scales, out_dtype)


@_row_rescale.register_fake
def _(product: Tensor, row_scales: Tensor, col_scales: Tensor, out_dtype: torch.dtype, impl: str) -> Tensor:
    return product.new_empty(tuple(product.shape), dtype=out_dtype)


def row_rescale(
    product: Tensor, row_scales: Tensor, col_scales: Tensor, out_dtype: torch.dtype, *, impl: str = "auto"
) -> Tensor:
    """``product * row_scales[:, None] * col_scales``, computed in float32 (float64 for float64).

    In a compiled graph, unless ``impl`` names a backend, it is plain torch: the compiler fuses it with what reads it.

    Args:
        product: ``[rows, cols]``: int32, or float of any width.
        row_scales: float32 ``[rows]``.
        col_scales: float32 ``[cols]``.
        out_dtype: a floating-point dtype.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``[rows, cols]`` in ``out_dtype``.

    Raises:
        ValueError: the shapes do not fit each other.
        TypeError: scales are not float32, or ``out_dtype`` is no floating-point dtype.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    if product.dim() != 2 or row_scales.shape != product.shape[:1] or col_scales.shape != product.shape[1:]:
        raise ValueError(
            f"product has shape {tuple(product.shape)}, row_scales {tuple(row_scales.shape)}, col_scales "
            f"{tuple(col_scales.shape)}: expected [rows, cols], [rows] and [cols]"
        )
    for name, scales in (("row_scales", row_scales), ("col_scales", col_scales)):
        if scales.dtype is not torch.float32:
            raise TypeError(f"{name} has dtype {scales.dtype}, expected torch.float32 as row_quantize returns")
    if not out_dtype.is_floating_point:
        raise TypeError(f"out_dtype={out_dtype}, expected a floating-point dtype")
    if impl == "auto" and torch.compiler.is_compiling():
        return row_rescale_reference(product, row_scales, col_scales, out_dtype)
    return _row_rescale(product, row_scales.contiguous(), col_scales.contiguous(), out_dtype, impl)
