"""The operator ``block_quantize``."""

from __future__ import annotations

from collections.abc import Sequence

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
    dense: Tensor,
    code_dtype: torch.dtype,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    codes: Tensor,
    scales: Tensor,
) -> Support:
    if dense.dtype not in KERNEL_DTYPES:
        return no(f"it computes in float32, dense is {dense.dtype}: use float32, float16 or bfloat16")
    capability = cuda_capability(dense.device)
    if code_dtype is torch.float8_e4m3fn and capability is not None and capability < (8, 9):
        return no(f"float8 needs compute capability 8.9, this GPU has {capability}: take int8", worth_warning=True)
    return triton_runs_on(dense.device)


@block_quantize_op.implement("triton", supports=_triton_supports)
def _(
    dense: Tensor,
    code_dtype: torch.dtype,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    codes: Tensor,
    scales: Tensor,
) -> None:
    from planish_kernels.block_quantize.triton import block_quantize_triton

    block_quantize_triton(dense, code_dtype, block, stochastic, seed, offset, codes, scales)


@block_quantize_op.implement("reference")
def _(
    dense: Tensor,
    code_dtype: torch.dtype,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    codes: Tensor,
    scales: Tensor,
) -> None:
    found = block_quantize_reference(dense, code_dtype, block, stochastic, seed, offset)
    codes.copy_(found[0])
    scales.copy_(found[1])


@torch.library.custom_op("planish::block_quantize_into", mutates_args=("codes", "scales"))
def _block_quantize_into(
    parts: list[Tensor],
    dim: int,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    codes: Tensor,
    scales: Tensor,
    impl: str,
) -> None:
    _quantize_parts(parts, dim, block, stochastic, seed, offset, codes, scales, impl)


def _quantize_parts(
    parts: Sequence[Tensor],
    dim: int,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    codes: Tensor,
    scales: Tensor,
    impl: str,
) -> None:
    """Write each part to its place."""
    at = at_block = 0
    for number, part in enumerate(parts):
        size, blocks = part.shape[dim], -(-part.shape[dim] // block)
        drawn = offset + number if stochastic and number else offset
        into = codes.narrow(dim, at, size), scales.narrow(dim, at_block, blocks)
        block_quantize_op.dispatch(impl, part, codes.dtype, block, stochastic, seed, drawn, *into)
        at, at_block = at + size, at_block + blocks


@_block_quantize_into.register_fake
def _(
    parts: list[Tensor],
    dim: int,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    codes: Tensor,
    scales: Tensor,
    impl: str,
) -> None:
    pass


@torch.library.custom_op("planish::block_quantize", mutates_args=())
def _block_quantize(
    parts: list[Tensor],
    dim: int,
    code_dtype: torch.dtype,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    impl: str,
) -> tuple[Tensor, Tensor]:
    codes, scales = _empty(parts, dim, code_dtype, block)
    _quantize_parts(parts, dim, block, stochastic, seed, offset, codes, scales, impl)
    return codes, scales


@_block_quantize.register_fake
def _(
    parts: list[Tensor],
    dim: int,
    code_dtype: torch.dtype,
    block: int,
    stochastic: bool,
    seed: Tensor,
    offset: Tensor,
    impl: str,
) -> tuple[Tensor, Tensor]:
    return _empty(parts, dim, code_dtype, block)


def _empty(parts: Sequence[Tensor], dim: int, code_dtype: torch.dtype, block: int) -> tuple[Tensor, Tensor]:
    """Room for codes and scales."""
    shape, blocks = _shapes(parts, dim, block)
    return parts[0].new_empty(shape, dtype=code_dtype), parts[0].new_empty(blocks, dtype=torch.float32)


def _shapes(parts: Sequence[Tensor], dim: int, block: int) -> tuple[list[int], list[int]]:
    """Shapes of codes and scales of the whole."""
    shape, blocks = list(parts[0].shape), [-(-size // block) for size in parts[0].shape]
    shape[dim] = sum(part.shape[dim] for part in parts)
    blocks[dim] = sum(-(-part.shape[dim] // block) for part in parts)
    return shape, blocks


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
    seed, offset = _checked([dense], code_dtype, block, rounding, seed, offset)
    return _block_quantize([dense.detach()], 0, code_dtype, block, rounding == "stochastic", seed, offset, impl)


def block_quantize_joined(
    parts: Sequence[Tensor],
    dim: int,
    code_dtype: torch.dtype = torch.int8,
    block: int = 32,
    rounding: str = "nearest",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    *,
    out: tuple[Tensor, Tensor] | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Quantize matrices into one, below each other or side by side; the dense ones are never joined in memory.

    To nearest the result is that of ``block_quantize(torch.cat(parts, dim))``, bit by bit. Stochastically part ``i`` is
    drawn as ``block_quantize`` draws it under ``offset + i``.

    Args:
        parts: float matrices of any strides that agree in device, dtype and the other dimension. All but the last are
            whole blocks along ``dim``.
        dim: 0: below each other. 1: side by side.
        code_dtype: as for :func:`block_quantize`.
        block: likewise.
        rounding: likewise.
        seed: likewise.
        offset: likewise.
        out: codes and scales to write to, as they would be returned; they keep their addresses, as CUDA graphs need it.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``codes`` and ``scales`` of the whole: those of ``out`` where they were given.

    Raises:
        ValueError, TypeError: arguments of another shape, dtype or range, or parts that cannot be joined.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    if dim not in (0, 1):
        raise ValueError(f"dim={dim}, expected 0 (below each other) or 1 (side by side)")
    if not parts:
        raise ValueError("parts is empty, expected at least one matrix")
    seed, offset = _checked(parts, code_dtype, block, rounding, seed, offset)
    first = parts[0]
    for number, part in enumerate(parts):
        kind = part.device, part.dtype, part.shape[1 - dim]
        if kind != (first.device, first.dtype, first.shape[1 - dim]):
            raise ValueError(
                f"part {number} is {part.dtype} {tuple(part.shape)} on {part.device}, the first one is {first.dtype} "
                f"{tuple(first.shape)} on {first.device}: device, dtype and dimension {1 - dim} must agree"
            )
        if number < len(parts) - 1 and part.shape[dim] % block:
            raise ValueError(
                f"part {number} has {part.shape[dim]} entries along dimension {dim}, which is no multiple of "
                f"block={block}: a block would reach into the next part; quantize it by itself"
            )
    detached, stochastic = [part.detach() for part in parts], rounding == "stochastic"
    if out is None:
        return _block_quantize(detached, dim, code_dtype, block, stochastic, seed, offset, impl)
    codes, scales = out
    for name, given, like in zip(("codes", "scales"), out, _shapes(parts, dim, block), strict=True):
        dtype = code_dtype if name == "codes" else torch.float32
        if (list(given.shape), given.dtype, given.device) != (like, dtype, first.device) or not given.is_contiguous():
            raise ValueError(
                f"out's {name} are {given.dtype} {tuple(given.shape)} on {given.device}, expected contiguous {dtype} "
                f"{tuple(like)} on {first.device}"
            )
    _block_quantize_into(detached, dim, block, stochastic, seed, offset, codes, scales, impl)
    return codes, scales


def _checked(
    parts: Sequence[Tensor],
    code_dtype: torch.dtype,
    block: int,
    rounding: str,
    seed: int | Tensor,
    offset: int | Tensor,
) -> tuple[Tensor, Tensor]:
    """Look at all arguments; seed and offset as tensors."""
    for dense in parts:
        if dense.dim() != 2:
            raise ValueError(
                f"dense has shape {tuple(dense.shape)}, expected [rows, cols]: flatten the leading dimensions"
            )
        if not dense.is_floating_point():
            raise TypeError(f"dense has dtype {dense.dtype}, expected a floating-point dtype")
    if code_dtype not in LARGEST:
        raise TypeError(f"code_dtype={code_dtype}, expected torch.int8 or torch.float8_e4m3fn")
    if block not in BLOCKS:
        raise ValueError(f"block={block}, expected one of {', '.join(map(str, BLOCKS))}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}, expected one of {', '.join(map(repr, ROUNDINGS))}")
    device = parts[0].device
    return as_scalar("seed", seed, device), as_scalar("offset", offset, device)
