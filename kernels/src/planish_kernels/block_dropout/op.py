"""The operator ``block_dropout``."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_dropout.reference import block_dropout_reference, dropped_draws
from planish_kernels.formats.block_scaled import BlockScaled, require_row_major
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support

block_dropout_op = Op("block_dropout", "dropout of block-scaled operands, the mask drawn in the kernel")


def _supports(codes: Tensor, *_: object) -> Support:
    return triton_runs_on(codes.device)


@block_dropout_op.implement("triton", supports=_supports)
def _(codes: Tensor, scales: Tensor, block: int, dropped: int, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    from planish_kernels.block_dropout.triton import block_dropout_triton

    return block_dropout_triton(codes, scales, block, dropped, seed, offset)


@block_dropout_op.implement("reference")
def _(codes: Tensor, scales: Tensor, block: int, dropped: int, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    return block_dropout_reference(codes, scales, block, dropped, seed, offset)


@torch.library.custom_op("planish::block_dropout", mutates_args=())
def _block_dropout(
    codes: Tensor, scales: Tensor, block: int, dropped: int, seed: Tensor, offset: Tensor, impl: str
) -> tuple[Tensor, Tensor]:
    return block_dropout_op.dispatch(impl, codes, scales, block, dropped, seed, offset)


@_block_dropout.register_fake
def _(
    codes: Tensor, scales: Tensor, block: int, dropped: int, seed: Tensor, offset: Tensor, impl: str
) -> tuple[Tensor, Tensor]:
    return codes.new_empty(codes.shape), scales.new_empty(scales.shape)


def block_dropout(
    x: BlockScaled, p: float, seed: int | Tensor = 0, offset: int | Tensor = 0, *, impl: str = "auto"
) -> BlockScaled:
    """Drop each element with probability ``p`` and divide the others by ``1 - p``: codes stay, scales change.

    Nothing is quantized again. A scale is divided and rounded to the nearest 17 significant bits, so that decoding
    stays exact: what remains is off by less than 2^-16.9 of itself, all of a block alike. ``p`` is rounded to a
    multiple of 2^-23, which is what divides the scales too.

    The mask depends on seed, offset and the place of the element, and on nothing else. It is not stored, since its
    gradient is the operator itself: ``block_dropout(grad_output, p, seed, offset)`` draws the same mask. It is
    independent of what other operators draw under the same seed and offset.

    Args:
        x: ``BlockInt8`` or ``BlockFloat8`` ``[rows, cols]``.
        p: probability of dropping, in [0, 1). With 0, ``x`` itself is returned.
        seed: as for ``block_quantize``.
        offset: likewise.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``[rows, cols]`` in the format and block of ``x``. A scale that overflows float32 becomes NaN, and a block that
        was not finite stays NaN throughout.

    Raises:
        ValueError: ``p`` is out of range, or ``x`` is transposed or strided.
        TypeError: ``x`` is no block-scaled format.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Jetfire (arXiv 2403.12422), section 6.
    """
    if not 0 <= p < 1:
        raise ValueError(f"p={p}, expected a probability in [0, 1)")
    require_row_major("x", x)
    if p == 0:
        return x
    device = x.codes.device
    seed, offset = as_scalar("seed", seed, device), as_scalar("offset", offset, device)
    codes, scales = _block_dropout(x.codes, x.scales, x.block, dropped_draws(p), seed, offset, impl)
    return type(x)(codes, scales, x.block, x.dtype)
