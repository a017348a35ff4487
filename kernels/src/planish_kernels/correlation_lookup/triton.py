"""Correlation lookup: a program takes a few positions of one level, a lane each place of their windows."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

POSITIONS, WARPS = 4, 2
"""On an H200, 2 to 8 positions a program are alike, and more warps slower."""


@triton.jit
def _lookup_kernel(
    volume, coords, out, positions, per_image, rows, cols, shrink, first_channel, channels,
    RADIUS: tl.constexpr, POSITIONS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    SIDE: tl.constexpr = 2 * RADIUS + 1
    # 56 pairs of 960x540 hold 3.7e9 correlations: places in memory need 64 bits.
    position = tl.program_id(0).to(tl.int64) * POSITIONS + tl.arange(0, POSITIONS)
    lane = tl.arange(0, LANES)
    live = position < positions
    image, pixel = position // per_image, position % per_image
    x = tl.load(coords + 2 * image * per_image + pixel, mask=live, other=0.0) * shrink
    y = tl.load(coords + (2 * image + 1) * per_image + pixel, mask=live, other=0.0) * shrink
    left, top = tl.floor(x), tl.floor(y)
    # False for NaN; further out the window is empty, and integers would overflow.
    near = (left >= -RADIUS - 1) & (left < cols + RADIUS) & (top >= -RADIUS - 1) & (top < rows + RADIUS)
    x, y, left, top = (
        tl.where(near, x, 0.0),
        tl.where(near, y, 0.0),
        tl.where(near, left, 0.0),
        tl.where(near, top, 0.0),
    )
    to_right, to_bottom = (x - left)[:, None], (y - top)[:, None]
    first_x = left.to(tl.int32)[:, None] + (lane // SIDE - RADIUS)[None, :]
    first_y = top.to(tl.int32)[:, None] + (lane % SIDE - RADIUS)[None, :]
    wanted = live[:, None] & (lane < SIDE * SIDE)[None, :]
    within = volume + position[:, None] * rows * cols
    total = tl.zeros((POSITIONS, LANES), tl.float32)
    for step_y in tl.static_range(2):
        for step_x in tl.static_range(2):
            cell_x, cell_y = first_x + step_x, first_y + step_y
            inside = wanted & near[:, None] & (cell_x >= 0) & (cell_x < cols) & (cell_y >= 0) & (cell_y < rows)
            value = tl.load(within + cell_y * cols + cell_x, mask=inside, other=0.0)
            weight_x = to_right if step_x == 1 else 1 - to_right
            weight_y = to_bottom if step_y == 1 else 1 - to_bottom
            total += value * (weight_x * weight_y)
    here = out + position[:, None] * channels + first_channel + lane[None, :]
    tl.store(here, total.to(out.dtype.element_ty), mask=wanted)


def correlation_lookup_triton(pyramid: Sequence[Tensor], radius: int, coords: Tensor, out_dtype: torch.dtype) -> Tensor:
    """The windows; see ``planish_kernels.correlation_lookup.correlation_lookup``. All tensors are contiguous."""
    pairs, _, height, width = coords.shape
    window = (2 * radius + 1) ** 2
    channels, positions = window * len(pyramid), pairs * height * width
    out = torch.empty((pairs, height, width, channels), dtype=out_dtype, device=coords.device)
    if out.numel() == 0:
        return out.permute(0, 3, 1, 2)
    with torch.cuda.device_of(coords):
        for level, volume in enumerate(pyramid):
            _lookup_kernel[(triton.cdiv(positions, POSITIONS),)](
                volume, coords, out, positions, height * width, *volume.shape[-2:], 0.5**level, level * window,
                channels, RADIUS=radius, POSITIONS=POSITIONS, LANES=triton.next_power_of_2(window), num_warps=WARPS,
            )  # fmt: skip
    return out.permute(0, 3, 1, 2)
