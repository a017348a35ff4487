"""Correlation lookup in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def correlation_lookup_reference(
    pyramid: Sequence[Tensor], radius: int, coords: Tensor, out_dtype: torch.dtype
) -> Tensor:
    """The windows, level by level; see ``planish_kernels.correlation_lookup.correlation_lookup``."""
    pairs, _, height, width = coords.shape
    positions, side = pairs * height * width, 2 * radius + 1
    offset = torch.arange(side * side, device=coords.device)
    across, down = offset // side - radius, offset % side - radius
    found = []
    for level, volume in enumerate(pyramid):
        rows, cols = volume.shape[-2:]
        flat = volume.reshape(positions, rows * cols)
        x, y = (coords[:, axis].reshape(-1, 1) * 0.5**level for axis in (0, 1))
        left, top = x.floor(), y.floor()
        # False for NaN; further out the window is empty, and integers would overflow.
        near = (left >= -radius - 1) & (left < cols + radius) & (top >= -radius - 1) & (top < rows + radius)
        x, y, left, top = (torch.where(near, value, 0.0) for value in (x, y, left, top))
        to_right, to_bottom = x - left, y - top
        first_x, first_y = left.long() + across, top.long() + down
        total = torch.zeros(positions, side * side, dtype=torch.float32, device=coords.device)
        for step_y, weight_y in ((0, 1 - to_bottom), (1, to_bottom)):
            for step_x, weight_x in ((0, 1 - to_right), (1, to_right)):
                cell_x, cell_y = first_x + step_x, first_y + step_y
                inside = near & (cell_x >= 0) & (cell_x < cols) & (cell_y >= 0) & (cell_y < rows)
                place = cell_y.clamp(0, rows - 1) * cols + cell_x.clamp(0, cols - 1)
                total += torch.where(inside, flat.gather(1, place), 0.0) * (weight_x * weight_y)
        found.append(total.to(out_dtype))
    return torch.cat(found, 1).view(pairs, height, width, len(found) * side * side).permute(0, 3, 1, 2)
