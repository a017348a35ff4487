"""The operators ``block_matmul`` and ``block_matmul_quantized``."""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.block_matmul.hopper import WRITTEN, block_matmul_hopper
from planish_kernels.block_matmul.hopper_support import hopper_available, hopper_multiplies
from planish_kernels.block_matmul.reference import block_matmul_reference
from planish_kernels.block_quantize.op import ROUNDINGS
from planish_kernels.block_quantize.reference import LARGEST, block_quantize_reference
from planish_kernels.formats.block_scaled import BlockScaled
from planish_kernels.formats.format import Format, Transposed
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.capability import cuda_capability, triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

block_matmul_op = Op("block_matmul", "product of block-scaled INT8 or FP8 operands, dense")
block_matmul_quantized_op = Op("block_matmul_quantized", "the same product, quantized in blocks on the way out")


def triton_multiplies(codes: Tensor, block: int) -> Support:
    """Whether the Triton kernel takes codes of this dtype and block on this device."""
    if block < 32:
        return no(f"tensor cores take int8 and float8 32 deep, the block is {block}: take 32, 64 or 128")
    capability = cuda_capability(codes.device)
    least = (8, 0) if codes.dtype is torch.int8 else (8, 9)
    if capability is not None and capability < least:
        return no(f"{codes.dtype} needs compute capability {least[0]}.{least[1]}, this GPU has {capability}")
    return triton_runs_on(codes.device)


def _supports(a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, *_: object) -> Support:
    return triton_multiplies(a_codes, block)


def _hopper_supports(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, *_: object
) -> Support:
    return hopper_multiplies(a_codes, b_codes, block)


@block_matmul_op.implement("cuda", supports=_hopper_supports, available=hopper_available)
def _(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    written = out_dtype if out_dtype in WRITTEN else torch.float32
    out = torch.empty((a_codes.shape[0], b_codes.shape[1]), dtype=written, device=a_codes.device)
    unused = as_scalar("seed", 0, a_codes.device)
    block_matmul_hopper(a_codes, a_scales, b_codes, b_scales, block, bias, out, None, False, unused, unused)
    return out.to(out_dtype)


@block_matmul_op.implement("triton", supports=_supports)
def _(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    from planish_kernels.block_matmul.triton import block_matmul_triton

    out = torch.empty((a_codes.shape[0], b_codes.shape[1]), dtype=out_dtype, device=a_codes.device)
    unused = as_scalar("seed", 0, a_codes.device)
    block_matmul_triton(a_codes, a_scales, b_codes, b_scales, block, bias, out, None, False, unused, unused)
    return out


@block_matmul_op.implement("reference")
def _(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    return block_matmul_reference(a_codes, a_scales, b_codes, b_scales, block, bias).to(out_dtype)


def _quantized_room(a_codes: Tensor, b_codes: Tensor, block: int) -> tuple[Tensor, Tensor]:
    m, n = a_codes.shape[0], b_codes.shape[1]
    out = torch.empty((m, n), dtype=a_codes.dtype, device=a_codes.device)
    return out, torch.empty((-(-m // block), -(-n // block)), dtype=torch.float32, device=a_codes.device)


@block_matmul_quantized_op.implement("cuda", supports=_hopper_supports, available=hopper_available)
def _(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    stochastic: bool, seed: Tensor, offset: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out, scales = _quantized_room(a_codes, b_codes, block)
    block_matmul_hopper(a_codes, a_scales, b_codes, b_scales, block, bias, out, scales, stochastic, seed, offset)
    return out, scales


@block_matmul_quantized_op.implement("triton", supports=_supports)
def _(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    stochastic: bool, seed: Tensor, offset: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from planish_kernels.block_matmul.triton import block_matmul_triton

    out, scales = _quantized_room(a_codes, b_codes, block)
    block_matmul_triton(a_codes, a_scales, b_codes, b_scales, block, bias, out, scales, stochastic, seed, offset)
    return out, scales


@block_matmul_quantized_op.implement("reference")
def _(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    stochastic: bool, seed: Tensor, offset: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    product = block_matmul_reference(a_codes, a_scales, b_codes, b_scales, block, bias)
    return block_quantize_reference(product, a_codes.dtype, block, stochastic, seed, offset)


@torch.library.custom_op("planish::block_matmul", mutates_args=())
def _block_matmul(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    out_dtype: torch.dtype, impl: str,
) -> Tensor:  # fmt: skip
    return block_matmul_op.dispatch(impl, a_codes, a_scales, b_codes, b_scales, block, bias, out_dtype)


@_block_matmul.register_fake
def _(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    out_dtype: torch.dtype, impl: str,
) -> Tensor:  # fmt: skip
    return a_scales.new_empty((a_codes.shape[0], b_codes.shape[1]), dtype=out_dtype)


@torch.library.custom_op("planish::block_matmul_quantized", mutates_args=())
def _block_matmul_quantized(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    stochastic: bool, seed: Tensor, offset: Tensor, impl: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return block_matmul_quantized_op.dispatch(
        impl, a_codes, a_scales, b_codes, b_scales, block, bias, stochastic, seed, offset
    )


@_block_matmul_quantized.register_fake
def _(
    a_codes: Tensor, a_scales: Tensor, b_codes: Tensor, b_scales: Tensor, block: int, bias: Tensor | None,
    stochastic: bool, seed: Tensor, offset: Tensor, impl: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    m, n = a_codes.shape[0], b_codes.shape[1]
    scales = a_scales.new_empty(((m + block - 1) // block, (n + block - 1) // block))
    return a_codes.new_empty((m, n)), scales


def parts(operand: Format) -> tuple[Tensor, Tensor, BlockScaled]:
    """Codes and scales of an operand as it lies (views, if it is transposed), and the format below.

    Raises:
        TypeError: the operand is neither block-scaled nor the transpose of such.
    """
    base = operand.base if isinstance(operand, Transposed) else operand
    if not isinstance(base, BlockScaled):
        raise TypeError(f"a {type(base).__name__} is no block-scaled operand: encode it as BlockInt8 or BlockFloat8")
    if isinstance(operand, Transposed):
        return base.codes.t(), base.scales.t(), base
    return base.codes, base.scales, base


def _checked(a: Format, b: Format, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, BlockScaled]:
    a_codes, a_scales, left = parts(a)
    b_codes, b_scales, right = parts(b)
    if a_codes.shape[1] != b_codes.shape[0]:
        raise ValueError(f"a is {tuple(a.shape)}, b is {tuple(b.shape)}: a's columns must be as many as b's rows")
    if left.block != right.block or type(left) is not type(right):
        raise ValueError(
            f"a is {type(left).__name__} with blocks of {left.block}, b is {type(right).__name__} with blocks of "
            f"{right.block}: encode both alike"
        )
    if bias is not None and tuple(bias.shape) != (b_codes.shape[1],):
        raise ValueError(f"bias has shape {tuple(bias.shape)}, expected ({b_codes.shape[1]},), one for each column")
    for name, operand in (("a", left), ("b", right)):
        expected = tuple(-(-size // operand.block) for size in operand.codes.shape)
        if tuple(operand.scales.shape) != expected:
            raise ValueError(
                f"{name} has codes of shape {tuple(operand.codes.shape)} and scales of shape "
                f"{tuple(operand.scales.shape)}, blocks of {operand.block} need scales of shape {expected}"
            )
    return a_codes, a_scales, b_codes, b_scales, left


def block_matmul(
    a: Format, b: Format, bias: Tensor | None = None, out_dtype: torch.dtype | None = None, *, impl: str = "auto"
) -> Tensor:
    """``a @ b + bias`` of block-scaled operands, accumulated in float32.

    Args:
        a: ``BlockInt8`` or ``BlockFloat8`` ``[m, k]``, or the transpose of one.
        b: the same format and block side, ``[k, n]``, or the transpose of one.
        bias: ``[n]``, or None.
        out_dtype: dtype of the product; None for that which ``a`` decodes to.
        impl: a backend by name, or ``"auto"``.

    Returns:
        dense ``[m, n]``, row-major.

    Raises:
        ValueError, TypeError: operands that do not fit each other.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Jetfire (arXiv 2403.12422), section 5.
    """
    *operands, left = _checked(a, b, bias)
    a_codes, a_scales, b_codes, b_scales = operands
    dtype = left.dtype if out_dtype is None else out_dtype
    return _block_matmul(a_codes, a_scales, b_codes, b_scales, left.block, bias, dtype, impl)


def block_matmul_quantized(
    a: Format,
    b: Format,
    bias: Tensor | None = None,
    rounding: str = "nearest",
    seed: int | Tensor = 0,
    offset: int | Tensor = 0,
    *,
    impl: str = "auto",
) -> BlockScaled:
    """``block_quantize(a @ b + bias)`` in one kernel: the product is never written in 16 or 32 bits.

    The bias is added before a block's scale is taken. Arguments as for ``block_matmul`` and ``block_quantize``.

    Returns:
        ``[m, n]`` in the format and block of ``a``.

    Raises:
        ValueError, TypeError: operands that do not fit each other.
        KernelUnavailable: the backend named by ``impl`` cannot do this.

    Source: Jetfire (arXiv 2403.12422), section 5.
    """
    *operands, left = _checked(a, b, bias)
    a_codes, a_scales, b_codes, b_scales = operands
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r}, expected one of {', '.join(map(repr, ROUNDINGS))}")
    assert a_codes.dtype in LARGEST
    seed, offset = as_scalar("seed", seed, a_codes.device), as_scalar("offset", offset, a_codes.device)
    codes, scales = _block_matmul_quantized(
        a_codes, a_scales, b_codes, b_scales, left.block, bias, rounding == "stochastic", seed, offset, impl
    )
    return type(left)(codes, scales, left.block, left.dtype)
