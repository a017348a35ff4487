"""The operators of the cuSPARSELt path: pack a weight, pack an estimated gradient, multiply."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

from planish_kernels.cusparselt import layout
from planish_kernels.cusparselt.self_test import MATMUL, PACKERS
from planish_kernels.mvue24.reference import mvue24_pack_reference
from planish_kernels.philox.scalar import as_scalar
from planish_kernels.runtime.capability import (
    cuda_capability,
    cusparselt_available,
    interpreting,
    triton_available,
    triton_runs_on,
)
from planish_kernels.runtime.op import FallbackWarning, Op
from planish_kernels.runtime.self_test import passes
from planish_kernels.runtime.support import YES, Support, no
from planish_kernels.runtime.tracing import constant_while_tracing

pack_op = Op("sparse24_pack", "2:4 weights into cuSPARSELt's layout, in one or both orientations")
mvue_pack_op = Op("sparse24_mvue_pack", "unbiased 2:4 estimate of a gradient into cuSPARSELt's layout, transposed")

_SIXTEEN_BIT = (torch.bfloat16, torch.float16)


# What the machine can do does not change while a process runs, so ``torch.compile`` takes the answers below as
# constants instead of tracing ctypes. They are strings, empty for yes: a tuple gets guards that cannot be evaluated.


def layout_verified(device: torch.device) -> Support:
    """Whether ``layout.py`` describes the library and GPU behind ``device``; on a CPU it is the definition."""
    return _answer(_layout_refusal(device))


def matmul_works(device: torch.device) -> Support:
    """Whether products on ``device`` go through cuSPARSELt: it is there, and its self-test passed."""
    return _answer(_matmul_refusal(device))


def cusparselt_present() -> Support:
    """``cusparselt_available`` as a constant of a compiled graph."""
    return _answer(_absence())


def _answer(refusal: str) -> Support:
    return no(refusal, worth_warning=False) if refusal else YES


@constant_while_tracing
def _layout_refusal(device: torch.device) -> str:
    return _unknown_layout(device)


@functools.cache
def _unknown_layout(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    capability = cuda_capability(device)
    if capability != (9, 0):
        return f"the packed layout is known for compute capability 9.0, this GPU has {capability}"
    from planish_kernels.cusparselt.library import CuSparseLtError, library

    try:
        version = library().version
    except CuSparseLtError as error:
        return str(error)
    if version[:2] in layout.VERIFIED_VERSIONS:
        return ""
    known = ", ".join(f"{major}.{minor}" for major, minor in layout.VERIFIED_VERSIONS)
    found = ".".join(map(str, version))
    message = f"the packed layout is known for cuSPARSELt {known}, this is {found}"
    warnings.warn(f"{message}: its own compressor packs instead, many times slower", FallbackWarning, stacklevel=2)
    return message


@constant_while_tracing
def _matmul_refusal(device: torch.device) -> str:
    if device.type != "cuda":
        return f"cuSPARSELt runs on CUDA tensors, these are on {device.type}"
    present = cusparselt_available()
    if not present:
        return present.reason
    result = passes(MATMUL, device)
    return "" if result else result.reason


@constant_while_tracing
def _absence() -> str:
    return cusparselt_available().reason


def _fused(device: torch.device) -> Support:
    if interpreting() and device.type == "cpu":
        return YES
    return triton_runs_on(device) and layout_verified(device) and passes(PACKERS, device)


def _pack_supports(
    weight: Tensor, bits: Tensor | None, scale: Tensor | None, by_rows: Tensor | None, by_cols: Tensor | None
) -> Support:
    fused = _fused(weight.device)
    if not fused:
        return fused
    packed = by_rows if by_rows is not None else by_cols
    if packed is not None and packed.dtype not in _SIXTEEN_BIT:
        return no(f"the fused packer writes bfloat16 and float16, not {packed.dtype}")
    if weight.dtype not in (*_SIXTEEN_BIT, torch.float32):
        return no(f"the fused packer reads float32, bfloat16 and float16, not {weight.dtype}")
    return YES


def _on_library(weight: Tensor, *_: object) -> Support:
    return matmul_works(weight.device)


@pack_op.implement("triton", available=triton_available, supports=_pack_supports)
def _(
    weight: Tensor, bits: Tensor | None, scale: Tensor | None, by_rows: Tensor | None, by_cols: Tensor | None
) -> None:
    from planish_kernels.cusparselt.pack_triton import pack_triton

    if weight.stride(1) != 1:
        weight = weight.contiguous()
    pack_triton(weight, bits, scale, by_rows, by_cols)


@pack_op.implement("cusparselt", available=cusparselt_available, supports=_on_library)
def _(
    weight: Tensor, bits: Tensor | None, scale: Tensor | None, by_rows: Tensor | None, by_cols: Tensor | None
) -> None:
    from planish_kernels.cusparselt.multiply import compress

    values, mask = _selected(weight, bits, scale)
    for packed, transpose in ((by_rows, False), (by_cols, True)):
        if packed is not None:
            masked = torch.where(mask, values, 0).to(packed.dtype)
            packed.copy_(compress(masked.t() if transpose else masked))


@pack_op.implement("reference")
def _(
    weight: Tensor, bits: Tensor | None, scale: Tensor | None, by_rows: Tensor | None, by_cols: Tensor | None
) -> None:
    values, mask = _selected(weight, bits, scale)
    if by_rows is not None:
        by_rows.copy_(layout.pack(values.to(by_rows.dtype), mask))
    if by_cols is not None:
        by_cols.copy_(layout.pack(values.to(by_cols.dtype).t(), mask.t()))


def _selected(weight: Tensor, bits: Tensor | None, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """The values to pack, and where."""
    from planish_kernels.formats.sparse24 import two_largest
    from planish_kernels.mask24.bits import unpack_mask
    from planish_kernels.soft_threshold24 import soft_threshold24

    if bits is not None:
        return weight, unpack_mask(bits, weight.shape[1])
    mask = two_largest(weight)
    return (weight if scale is None else soft_threshold24(weight, scale)), mask


@torch.library.custom_op("planish::sparse24_pack_", mutates_args=("by_rows", "by_cols"))
def _pack(
    weight: Tensor,
    bits: Tensor | None,
    scale: Tensor | None,
    by_rows: Tensor | None,
    by_cols: Tensor | None,
    impl: str,
) -> None:
    pack_op.dispatch(_reliable(impl, weight.device), weight, bits, scale, by_rows, by_cols)


@_pack.register_fake
def _(
    weight: Tensor,
    bits: Tensor | None,
    scale: Tensor | None,
    by_rows: Tensor | None,
    by_cols: Tensor | None,
    impl: str,
) -> None:
    return None


def _reliable(impl: str, device: torch.device) -> str:
    """On a GPU whose layout is unknown, only the library itself packs."""
    return impl if impl != "auto" or layout_verified(device) else "cusparselt"


def pack_(
    weight: Tensor,
    by_rows: Tensor | None,
    by_cols: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    scale: Tensor | None = None,
    impl: str = "auto",
) -> None:
    """Overwrite packed buffers with a 2:4 version of ``weight``, reading it once for both.

    Safe in a CUDA graph: no allocation, no wait.

    Args:
        weight: float32 or 16-bit ``[rows, cols]``, both multiples of 64. A row-major one is read in place.
        by_rows: buffer of ``packed_numel(rows, cols)`` elements, bfloat16 or float16: groups of four along a row.
        by_cols: buffer of the same size for the transpose, groups of four along a column; needs a ``mask`` that is 2:4
            along columns too.
        mask: packed bits, uint8 ``[rows, cols / 8]`` as ``pack_mask`` gives them; at most two of each group, which is
            not checked. None keeps the two largest magnitudes of each four columns.
        scale: 0-d, instead of a mask: pack ``soft_threshold24(weight, scale)``.
        impl: a backend by name, or ``"auto"``.

    Raises:
        ValueError: shapes, dtypes or the choice of arguments do not fit.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected two dimensions [rows, cols]")
    rows, cols = weight.shape
    if by_cols is not None and mask is None:
        raise ValueError("by_cols needs a mask that is 2:4 along columns too: pass one, or pack weight.t() by rows")
    if mask is not None and scale is not None:
        raise ValueError("mask and scale were both given: a mask keeps entries as they are, a scale thresholds them")
    if mask is not None and (mask.dtype is not torch.uint8 or tuple(mask.shape) != (rows, (cols + 7) // 8)):
        raise ValueError(
            f"mask is {mask.dtype} {tuple(mask.shape)}, expected packed bits, uint8 ({rows}, {(cols + 7) // 8})"
        )
    for name, packed in (("by_rows", by_rows), ("by_cols", by_cols)):
        if packed is None:
            continue
        support = layout.check_shape(rows, cols, packed.dtype)
        if not support:
            raise ValueError(f"{name}: {support.reason}")
        expected = layout.packed_numel(rows, cols, packed.dtype)
        if packed.shape != (expected,) or not packed.is_contiguous() or packed.device != weight.device:
            raise ValueError(
                f"{name} has shape {tuple(packed.shape)} on {packed.device}, expected a contiguous ({expected},) on "
                f"{weight.device}: torch.empty(packed_numel(rows, cols, dtype))"
            )
    _pack(weight.detach(), mask, scale, by_rows, by_cols, impl)


def _mvue_supports(grad: Tensor, seed: Tensor, offset: Tensor) -> Support:
    return _fused(grad.device)


@mvue_pack_op.implement("triton", available=triton_available, supports=_mvue_supports)
def _(grad: Tensor, seed: Tensor, offset: Tensor) -> Tensor:
    from planish_kernels.cusparselt.pack_triton import mvue_pack_triton

    return mvue_pack_triton(grad if grad.stride(1) == 1 else grad.contiguous(), seed, offset)


@mvue_pack_op.implement("cusparselt", available=cusparselt_available, supports=_on_library)
def _(grad: Tensor, seed: Tensor, offset: Tensor) -> Tensor:
    from planish_kernels.cusparselt.multiply import compress
    from planish_kernels.mvue24 import mvue24

    estimate = mvue24(grad, seed, offset).t()
    return compress(torch.nn.functional.pad(estimate, (0, -estimate.shape[1] % layout.BLOCK)))


@mvue_pack_op.implement("reference")
def _(grad: Tensor, seed: Tensor, offset: Tensor) -> Tensor:
    from planish_kernels.formats.sparse24 import Sparse24

    estimate = Sparse24(*mvue24_pack_reference(grad, seed, offset)).decode()
    estimate = torch.nn.functional.pad(estimate, (0, -estimate.shape[1] % layout.BLOCK))
    return layout.pack(estimate, estimate != 0)


@torch.library.custom_op("planish::sparse24_mvue_pack", mutates_args=())
def _mvue_pack(grad: Tensor, seed: Tensor, offset: Tensor, impl: str) -> Tensor:
    return mvue_pack_op.dispatch(_reliable(impl, grad.device), grad, seed, offset)


@_mvue_pack.register_fake
def _(grad: Tensor, seed: Tensor, offset: Tensor, impl: str) -> Tensor:
    tokens, channels = grad.shape
    padded = (tokens + layout.BLOCK - 1) // layout.BLOCK * layout.BLOCK
    return grad.new_empty(layout.packed_numel(channels, padded, grad.dtype))


def mvue_pack(grad: Tensor, seed: int | Tensor, offset: int | Tensor, *, impl: str = "auto") -> Tensor:
    """``mvue24(grad, seed, offset).T`` as a packed buffer, in one pass over ``grad``.

    Args:
        grad: bfloat16 or float16 ``[tokens, channels]``; channels a multiple of 64. A row-major one is read in place.
            Zero tokens are added up to a multiple of 64.
        seed, offset, impl: as for ``planish_kernels.mvue24.mvue24``; the draws are the same.

    Returns:
        the buffer of a ``[channels, padded tokens]`` matrix.

    Raises:
        ValueError: the shape or dtype does not fit.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    if grad.dim() != 2:
        raise ValueError(f"grad has shape {tuple(grad.shape)}, expected two dimensions [tokens, channels]")
    tokens, channels = grad.shape
    support = layout.check_shape(channels, max(tokens, 1) + -max(tokens, 1) % layout.BLOCK, grad.dtype)
    if not support or grad.dtype not in _SIXTEEN_BIT:
        raise ValueError(f"grad: {support.reason or f'{grad.dtype} cannot be estimated: use bfloat16 or float16'}")
    seed, offset = as_scalar("seed", seed, grad.device), as_scalar("offset", offset, grad.device)
    return _mvue_pack(grad.detach(), seed, offset, impl)


@torch.library.custom_op("planish::sparse24_multiply", mutates_args=())
def packed_multiply(packed: Tensor, rows: int, cols: int, dense: Tensor, transposed: bool) -> Tensor:
    """``[rows, cols] @ dense`` for a packed buffer, returned as ``[n, rows]`` if ``transposed``; see ``multiply``."""
    from planish_kernels.cusparselt.multiply import multiply

    return multiply(packed, rows, cols, dense, transposed)


@packed_multiply.register_fake
def _(packed: Tensor, rows: int, cols: int, dense: Tensor, transposed: bool) -> Tensor:
    n = dense.shape[1]
    return dense.new_empty((n, rows) if transposed else (rows, n))
