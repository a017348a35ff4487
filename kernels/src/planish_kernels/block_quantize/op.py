"""The operator ``block_quantize``."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_quantize.reference import LARGEST, block_quantize_reference
from planish_kernels.formats.block_scaled import BLOCKS
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.capability import cuda_capability, triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

ROUNDINGS = ("nearest", "stochastic")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

block_quantize_op = Op("block_quantize", "INT8 or FP8 codes with one scale for each square block")


def _triton_supports(
    dense: Tensor, code_dtype: torch.dtype, block: int, stochastic: bool, seed: Tensor, offset: Tensor
) -> Support:
    if dense.dtype not in KERNEL_DTYPES:
        return no(f"it computes in float32, dense is {dense.dtype}: use float32, float16 or bfloat16")
    capability = cuda_capability(dense.device)
    if code_dtype is torch.float8_e4m3fn and capability is not None and capability < (8, 9):
        return no(f"float8 needs compute capability 8.9, this GPU has {capability}: take int8", worth_warning=True)
    return triton_runs_on(dense.device)


@block_quantize_op.implement("triton", supports=_triton_supports)
def _(
    dense: Tensor, code_dtype: torch.dtype, block: int, stochastic: bool, seed: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    from planish_kernels.block_quantize.triton import block_quantize_triton

    return block_quantize_triton(dense, code_dtype, block, stochastic, seed, offset)


@block_quantize_op.implement("reference")
def _(
    dense: Tensor, code_dtype: torch.dtype, block: int, stochastic: bool, seed: Tensor, offset: Tensor
) -> tuple[Tensor, Tensor]:
    return block_quantize_reference(dense, code_dtype, block, stochastic, seed, offset)


@torch.library.custom_op("planish::block_quantize", mutates_args=())
def _block_quantize(
    dense: Tensor, code_dtype: torch.dtype, block: int, stochastic: bool, seed: Tensor, offset: Tensor, impl: str
) -> tuple[Tensor, Tensor]:
    return block_quantize_op.dispatch(impl, dense, code_dtype, block, stochastic, seed, offset)


@_block_quantize.register_fake
def _(
    dense: Tensor, code_dtype: torch.dtype, block: int, stochastic: bool, seed: Tensor, offset: Tensor, impl: str
) -> tuple[Tensor, Tensor]:
    rows, cols = dense.shape
    blocks = ((rows + block - 1) // block, (cols + block - 1) // block)
    return dense.new_empty((rows, cols), dtype=code_dtype), dense.new_empty(blocks, dtype=torch.float32)


def block_quantize(
    dense: Tensor,
    code_dtype: torch.dtype = torch.int8,
    block: int = 32,
    rounding: str = "nearest",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    *,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Quantize a matrix in square blocks with one scale each.

    The scale of a block is its largest magnitude over the largest code (127, or 448 for float8), rounded up to 17
    significant bits; codes are ``value / scale``, rounded. An INT8 entry is off by at most half a scale (to nearest) or
    less than one (stochastically). A shape that is no multiple of the block has smaller blocks at its ends. The
    transpose has the transposed codes and scales, bit by bit (to nearest); quantizing what was decoded gives the same
    codes and scales.

    A block of zeros has the smallest scale, 2^-120, and codes 0. A block with an infinity or NaN has the scale NaN and
    codes 0: it decodes to NaN throughout, so that loss scaling and anomaly checks see it.

    Args:
        dense: float ``[rows, cols]``, any strides. Computed in float32.
        code_dtype: ``torch.int8`` or ``torch.float8_e4m3fn``.
        block: the side of a block: 16, 32, 64 or 128.
        rounding: ``"nearest"`` (ties to even), or ``"stochastic"``: up or down at random, so that the mean is exact.
        seed: 64-bit integer or 0-d int64 tensor: what the draws of ``"stochastic"`` depend on, besides ``offset`` and
            the place of the element. Take one for each layer and rank.
        offset: likewise; take one for each step. Pass tensors to have fresh draws at each replay of a CUDA graph.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``codes``: ``[rows, cols]`` in ``code_dtype``, contiguous. ``scales``: float32
        ``[ceil(rows / block), ceil(cols / block)]``.

    Raises:
        ValueError, TypeError: arguments of another shape, dtype or range.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Jetfire (arXiv 2403.12422), section 4, equation 1. Its stochastic rounding, section 4.2, is here
    ``floor(value / scale + u)`` with ``u`` from Philox.
    """
    if dense.dim() != 2:
        raise ValueError(f"dense has shape {tuple(dense.shape)}, expected [rows, cols]: flatten the leading dimensions")
    if not dense.is_floating_point():
        raise TypeError(f"dense has dtype {dense.dtype}, expected a floating-point dtype")
    if code_dtype not in LARGEST:
        raise TypeError(f"code_dtype={code_dtype}, expected torch.int8 or torch.float8_e4m3fn")
    if block not in BLOCKS:
        raise ValueError(f"block={block}, expected one of {', '.join(map(str, BLOCKS))}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}, expected one of {', '.join(map(repr, ROUNDINGS))}")
    seed, offset = as_scalar("seed", seed, dense.device), as_scalar("offset", offset, dense.device)
    return _block_quantize(dense.detach(), code_dtype, block, rounding == "stochastic", seed, offset, impl)
