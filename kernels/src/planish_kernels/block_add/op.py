"""The operator ``block_add``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from planish_kernels.block_activation.op import triton_computes_on
from planish_kernels.block_add.reference import block_add_reference
from planish_kernels.block_norm.op import KINDS
from planish_kernels.block_quantize.op import KERNEL_DTYPES, ROUNDINGS
from planish_kernels.formats.block_scaled import BlockScaled, require_row_major
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

block_add_op = Op("block_add", "residual plus a quantized branch, quantized again, with statistics for the next norm")


def _supports(residual: Tensor, codes: Tensor, *_: object) -> Support:
    if residual.dtype not in KERNEL_DTYPES:
        return no(f"it computes in float32, the residual is {residual.dtype}: use float32, float16 or bfloat16")
    return triton_computes_on(codes)


@block_add_op.implement("triton", supports=_supports)
def _(
    residual: Tensor, codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float, stochastic: bool,
    seed: Tensor, offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from planish_kernels.block_add.triton import block_add_triton

    return block_add_triton(residual, codes, scales, block, is_rms, eps, stochastic, seed, offset)


@block_add_op.implement("reference")
def _(
    residual: Tensor, codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float, stochastic: bool,
    seed: Tensor, offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return block_add_reference(residual, codes, scales, block, is_rms, eps, stochastic, seed, offset)


@torch.library.custom_op("planish::block_add", mutates_args=())
def _block_add(
    residual: Tensor, codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float, stochastic: bool,
    seed: Tensor, offset: Tensor, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return block_add_op.dispatch(impl, residual, codes, scales, block, is_rms, eps, stochastic, seed, offset)


@_block_add.register_fake
def _(
    residual: Tensor, codes: Tensor, scales: Tensor, block: int, is_rms: bool, eps: float, stochastic: bool,
    seed: Tensor, offset: Tensor, impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    total = residual.new_empty(residual.shape)
    return total, codes.new_empty(codes.shape), scales.new_empty(scales.shape), scales.new_empty((2, codes.shape[0]))


class ResidualSum(NamedTuple):
    """What ``block_add`` gives.

    Attributes:
        total: the sum ``[rows, cols]`` in the residual's dtype.
        quantized: the sum in the branch's format.
        statistics: float32 ``[2, rows]``, mean and reciprocal deviation of the rows of ``quantized``, as
            ``row_statistics`` gives them.
    """

    total: Tensor
    quantized: BlockScaled
    statistics: Tensor


def block_add(
    residual: Tensor,
    branch: BlockScaled,
    *,
    kind: str = "layer",
    eps: float = 1e-5,
    rounding: str = "nearest",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    impl: str = "auto",
) -> ResidualSum:
    """``residual + branch``, kept in the residual's precision and quantized beside it, in one pass.

    Forward, it joins a branch to the stream and gives the next norm its input and statistics; backward, it joins a
    quantized gradient to that of the stream (``rounding="stochastic"``).

    Args:
        residual: float ``[rows, cols]``, any strides.
        branch: ``BlockInt8`` or ``BlockFloat8`` of that shape.
        kind: of the norm that follows: ``"layer"``, or ``"rms"``, whose mean counts as zero.
        eps: of that norm.
        rounding: of the quantized sum.
        seed: as for ``block_quantize``.
        offset: likewise.
        impl: a backend by name, or ``"auto"``.

    Raises:
        ValueError, TypeError: arguments that do not fit each other.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Jetfire (arXiv 2403.12422), section 6: the Add operator, with a full-precision stream beside the INT8 copy.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}, expected one of {', '.join(map(repr, KINDS))}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}, expected one of {', '.join(map(repr, ROUNDINGS))}")
    require_row_major("branch", branch)
    if residual.shape != branch.shape:
        raise ValueError(f"residual has shape {tuple(residual.shape)}, branch has {tuple(branch.shape)}: flatten alike")
    if not residual.is_floating_point():
        raise TypeError(f"residual has dtype {residual.dtype}, expected a floating-point dtype")
    device = branch.codes.device
    seed, offset = as_scalar("seed", seed, device), as_scalar("offset", offset, device)
    total, codes, scales, statistics = _block_add(
        residual.detach(), branch.codes, branch.scales, branch.block, kind == "rms", eps, rounding == "stochastic",
        seed, offset, impl,
    )  # fmt: skip
    return ResidualSum(total, type(branch)(codes, scales, branch.block, residual.dtype), statistics)
