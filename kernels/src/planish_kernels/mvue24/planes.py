"""The minimum-variance estimate on CPUs: the draws of ``reference.py``, in passes over long rows that stay in cache.

A block of groups is four planes ``[groups, channels]``, one for each place in a group. Everything is elementwise on
planes, in arithmetic that torch vectorises (``where``, ``<`` on floats and ``stack`` it does not): a comparison is an
int32 of all ones or zeros, a selection is a bitwise and. Sums and products are those of ``sample_systematic``,
operation by operation, so that the two agree bit for bit wherever the result is a number.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from planish_kernels.philox import group_uniforms

#: Groups in a block: about thirty planes of 128 KB are alive at once.
_GROUPS_AT_ONCE = 1 << 15
#: Sums of four magnitudes below this do not overflow float32.
_LARGEST_SUMMABLE = 2.0**120


def _finite_less(a: Tensor, b: Tensor) -> Tensor:
    """int32, all ones where ``a < b``: the sign of the difference."""
    return (a - b).view(torch.int32) >> 31


def _less(a: Tensor, b: Tensor) -> Tensor:
    return -(a < b).to(torch.int32)


def _select(kept: Tensor, value: Tensor) -> Tensor:
    return value.view(torch.int32) & kept


def _draw(x: tuple[Tensor, ...], uniforms: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Kept places (int32, all ones or zeros; two in each group) and kept values (float32, as int32, zero elsewhere).

    Args:
        x: four float32 planes ``[groups, channels]``.
        uniforms: float32 of the same shape.
    """
    a0, a1, a2, a3 = a = [plane.abs() for plane in x]
    limits = torch.finfo(torch.float32)
    smallest = limits.smallest_normal * limits.eps
    low, high = (a0 + a1).add_(smallest), (a2 + a3).add_(smallest)
    # A NaN is not less than anything.
    finite = bool(torch.maximum(low, high).max() < _LARGEST_SUMMABLE)
    smaller, less = (torch.minimum, _finite_less) if finite else (torch.fmin, _less)
    first = smaller(a0, a1 + high)
    second = first + smaller(a1, a0 + high)
    third = second + smaller(a2, a3 + low)
    total = third + smaller(a3, a2 + low)
    height = total * 0.5
    near = uniforms * height
    far = smaller((uniforms + 1.0).mul_(height), total * (1 - limits.eps / 2))

    near0, near1 = less(near, first), less(near, second)
    far1, far2 = less(far, second) & near0, less(far, third) & near1
    kept = [near0, far1 | (near1 & ~near0), ~near1 | (far2 & ~far1), ~far1 & ~far2]
    values = [
        _select(keep, torch.copysign(torch.maximum(magnitude, height), plane))
        for keep, magnitude, plane in zip(kept, a, x, strict=True)
    ]
    if not finite:
        is_number = torch.isfinite(low + high)
        nan = torch.full((), torch.nan).view(torch.int32)
        values = [torch.where(is_number, value, nan) for value in values]
    return kept, values


def _blocks(grad: Tensor, seed: Tensor, offset: Tensor) -> Iterator[tuple[slice, list[Tensor], list[Tensor]]]:
    """For each block: which groups, and what ``_draw`` gives for them."""
    tokens, channels = grad.shape
    if channels == 0:
        return
    groups = (tokens + 3) // 4
    # Four groups share a Philox call.
    step = max(4, _GROUPS_AT_ONCE // channels // 4 * 4)
    for start in range(0, groups, step):
        stop = min(start + step, groups)
        part = grad[4 * start : 4 * stop].to(torch.float32)
        part = torch.nn.functional.pad(part, (0, 0, 0, 4 * (stop - start) - part.shape[0]))
        uniforms = group_uniforms(seed, offset, stop - start, channels, first_group=start)
        yield slice(start, stop), *_draw(part.view(stop - start, 4, channels).unbind(1), uniforms)


def mvue24_by_planes(grad: Tensor, seed: Tensor, offset: Tensor) -> Tensor:
    """Dense estimate of ``grad [tokens, channels]``, at most 32 bits a value; see ``planish_kernels.mvue24.mvue24``."""
    tokens, channels = grad.shape
    groups = (tokens + 3) // 4
    out = torch.empty((groups, 4, channels), dtype=grad.dtype, device=grad.device)
    for block, _, values in _blocks(grad.detach(), seed, offset):
        for place, value in enumerate(values):
            out[block, place] = value.view(torch.float32)
    return out.flatten(0, 1)[:tokens]


def mvue24_pack_by_planes(grad: Tensor, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Packed transpose of the estimate; see ``planish_kernels.mvue24.mvue24_pack``."""
    tokens, channels = grad.shape
    groups = (tokens + 3) // 4
    pairs = torch.empty((channels, groups, 2), dtype=grad.dtype, device=grad.device)
    nibbles = torch.zeros((channels, groups + groups % 2), dtype=torch.uint8, device=grad.device)
    for block, (k0, k1, k2, k3), (v0, v1, v2, v3) in _blocks(grad.detach(), seed, offset):
        # Zero bits where a place is not kept: two values of a group are told apart by which of them comes first.
        left = v0 | (v1 & ~k0) | (v2 & ~(k0 | k1))
        right = (v1 & k0) | (v2 & (k0 | k1)) | v3
        both = torch.stack((left.view(torch.float32), right.view(torch.float32)), dim=-1)
        pairs[:, block] = both.transpose(0, 1).to(grad.dtype)
        bits = (k0 & 1) | (k1 & 2) | (k2 & 4) | (k3 & 8)
        nibbles[:, block] = bits.to(torch.uint8).t()
    return pairs.flatten(1), nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)
