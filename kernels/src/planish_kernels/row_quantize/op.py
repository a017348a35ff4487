"""The operator ``row_quantize``."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_quantize.op import KERNEL_DTYPES, ROUNDINGS
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.row_quantize.reference import row_quantize_reference
from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

row_quantize_op = Op("row_quantize", "INT8 codes with one scale for each row")


def _triton_supports(dense: Tensor, stochastic: bool, seed: Tensor, offset: Tensor) -> Support:
    if dense.dtype not in KERNEL_DTYPES:
        return no(f"it computes in float32, dense is {dense.dtype}: use float32, float16 or bfloat16")
    return triton_runs_on(dense.device)


@row_quantize_op.implement("triton", supports=_triton_supports)
def _(dense: Tensor, stochastic: bool, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    from planish_kernels.row_quantize.triton import row_quantize_triton

    return row_quantize_triton(dense, stochastic, seed, offset)


@row_quantize_op.implement("reference")
def _(dense: Tensor, stochastic: bool, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    return row_quantize_reference(dense, stochastic, seed, offset)


@torch.library.custom_op("planish::row_quantize", mutates_args=())
def _row_quantize(dense: Tensor, stochastic: bool, seed: Tensor, offset: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    return row_quantize_op.dispatch(impl, dense, stochastic, seed, offset)


@_row_quantize.register_fake
def _(dense: Tensor, stochastic: bool, seed: Tensor, offset: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    rows, cols = dense.shape
    return dense.new_empty((rows, cols), dtype=torch.int8), dense.new_empty((rows,), dtype=torch.float32)


def row_quantize(
    dense: Tensor,
    rounding: str = "nearest",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    *,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Quantize each row of a matrix to INT8 with a scale of its own.

    The scale of a row is its largest magnitude over 127, rounded up to 17 significant bits; codes are
    ``value / scale``, rounded. An entry is off by at most half a scale (to nearest) or less than one (stochastically).
    Quantizing what was decoded gives the same codes and scales. A row of zeros has the smallest scale, 2^-120, and
    codes 0; a row with an infinity or NaN has the scale NaN and codes 0: it decodes to NaN throughout.

    Args:
        dense: float ``[rows, cols]``, at least one column, any strides. Computed in float32.
        rounding: ``"nearest"`` (ties to even), or ``"stochastic"``: up or down at random, so that the mean is exact.
        seed: 64-bit integer or 0-d int64 tensor: what the draws of ``"stochastic"`` depend on, besides ``offset`` and
            the place of the element. Take one for each layer and rank.
        offset: likewise; take one for each step. Pass tensors to have fresh draws at each replay of a CUDA graph.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``codes``: int8 ``[rows, cols]``, contiguous. ``scales``: float32 ``[rows]``.

    Raises:
        ValueError, TypeError: arguments of another shape, dtype or range.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    if dense.dim() != 2 or dense.shape[1] == 0:
        raise ValueError(
            f"dense has shape {tuple(dense.shape)}, expected [rows, cols] with a column at least: flatten the leading "
            "dimensions"
        )
    if not dense.is_floating_point():
        raise TypeError(f"dense has dtype {dense.dtype}, expected a floating-point dtype")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}, expected one of {', '.join(map(repr, ROUNDINGS))}")
    seed, offset = as_scalar("seed", seed, dense.device), as_scalar("offset", offset, dense.device)
    return _row_quantize(dense.detach(), rounding == "stochastic", seed, offset, impl)
