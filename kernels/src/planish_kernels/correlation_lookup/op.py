"""The operator ``correlation_lookup``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from planish_kernels.correlation_lookup.reference import correlation_lookup_reference
from planish_kernels.runtime.capability import triton_runs_on
from planish_kernels.runtime.op import Op
from planish_kernels.runtime.support import Support, no

correlation_lookup_op = Op("correlation_lookup", "windows of bilinear values around a position of each level")

_DTYPES = (torch.float32, torch.bfloat16)
_LARGEST_LEVEL = 2**31


def _triton_supports(pyramid: list[Tensor], radius: int, coords: Tensor, out_dtype: torch.dtype) -> Support:
    if any(volume.shape[-2] * volume.shape[-1] >= _LARGEST_LEVEL for volume in pyramid):
        return no("places within one level are 32 bits, a level is larger")
    return triton_runs_on(coords.device)


@correlation_lookup_op.implement("triton", supports=_triton_supports)
def _(pyramid: list[Tensor], radius: int, coords: Tensor, out_dtype: torch.dtype) -> Tensor:
    from planish_kernels.correlation_lookup.triton import correlation_lookup_triton

    return correlation_lookup_triton([v.contiguous() for v in pyramid], radius, coords.contiguous(), out_dtype)


@correlation_lookup_op.implement("reference")
def _(pyramid: list[Tensor], radius: int, coords: Tensor, out_dtype: torch.dtype) -> Tensor:
    return correlation_lookup_reference(pyramid, radius, coords, out_dtype)


@torch.library.custom_op("planish::correlation_lookup", mutates_args=())
def _correlation_lookup(
    pyramid: list[Tensor], radius: int, coords: Tensor, out_dtype: torch.dtype, impl: str
) -> Tensor:
    return correlation_lookup_op.dispatch(impl, pyramid, radius, coords, out_dtype)


@_correlation_lookup.register_fake
def _(pyramid: list[Tensor], radius: int, coords: Tensor, out_dtype: torch.dtype, impl: str) -> Tensor:
    pairs, _, height, width = coords.shape
    channels = len(pyramid) * (2 * radius + 1) ** 2
    return coords.new_empty((pairs, height, width, channels), dtype=out_dtype).permute(0, 3, 1, 2)


def correlation_lookup(
    pyramid: Sequence[Tensor], radius: int, coords: Tensor, out_dtype: torch.dtype, *, impl: str = "auto"
) -> Tensor:
    """Correlations in a window around each position, bilinear, zero outside: RAFT's lookup, all levels at once.

    As ``grid_sample(..., align_corners=True)`` and torchvision's ``CorrBlock.index_pyramid`` define it, computed in
    float32. There is no gradient.

    Args:
        pyramid: level l: float32 ``[pairs * h * w, 1, h_l, w_l]``, the correlations of each pixel with a whole frame;
            positions halve from level to level.
        radius: of the window, in cells of each level.
        coords: float32 ``[pairs, 2, h, w]``, (x, y) in cells of the first level. A position that is not finite, or
            whose window lies outside of a level, gives zeros there; nothing out of bounds is read.
        out_dtype: float32 or bfloat16.
        impl: a backend by name, or ``"auto"``.

    Returns:
        ``[pairs, levels * (2 * radius + 1)**2, h, w]`` in ``out_dtype``, channels last in memory. Channels go by level,
        then by x offset, then by y offset.

    Raises:
        ValueError: shapes or devices do not fit each other, there is no level, or the radius is negative.
        TypeError: levels or positions are not float32, or ``out_dtype`` is neither float32 nor bfloat16.
        KernelUnavailable: the backend named by ``impl`` cannot do this.
    """
    if coords.dim() != 4 or coords.shape[1] != 2:
        raise ValueError(f"coords has shape {tuple(coords.shape)}, expected [pairs, 2, h, w]")
    if not pyramid or radius < 0:
        raise ValueError(f"{len(pyramid)} levels and radius {radius}: expected a level or more, and a radius from 0 on")
    positions = coords.shape[0] * coords.shape[2] * coords.shape[3]
    for level, volume in enumerate(pyramid):
        if volume.dim() != 4 or volume.shape[:2] != (positions, 1) or 0 in volume.shape[2:]:
            raise ValueError(
                f"level {level} has shape {tuple(volume.shape)}, coords {tuple(coords.shape)}: expected "
                f"[{positions}, 1, rows, columns]"
            )
        if volume.device != coords.device:
            raise ValueError(f"level {level} is on {volume.device} and coords on {coords.device}: expected one device")
    for name, tensor in (("coords", coords), *((f"level {i}", volume) for i, volume in enumerate(pyramid))):
        if tensor.dtype is not torch.float32:
            raise TypeError(f"{name} has dtype {tensor.dtype}, expected torch.float32")
    if out_dtype not in _DTYPES:
        raise TypeError(f"out_dtype={out_dtype}, expected torch.float32 or torch.bfloat16")
    return _correlation_lookup(list(pyramid), radius, coords, out_dtype, impl)
