"""One refinement step of RAFT in a short format: look up correlations, update, move.

The model's own lookup samples each pixel's correlations as a picture of its own. Written as reads at computed places,
a compiler makes it one kernel beside which nothing of the grids of coordinates is ever in memory; run eagerly it would
be a hundred of them, so that there the model's own is kept, or a kernel of the caller's is used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from planish_egovid.flow.any_batch import compiled_for_any_batch

Lookup = Callable[[Sequence[Tensor], int, Tensor, torch.dtype], Tensor]
"""What computes :func:`looked_up`."""


def can_look_up(correlation: Any) -> bool:
    """Whether a model's correlation block is laid out as torchvision's: a radius, and a pyramid of halved levels."""
    return all(isinstance(getattr(correlation, name, None), int) for name in ("radius", "num_levels"))


def looked_up(pyramid: Sequence[Tensor], radius: int, at: Tensor, dtype: torch.dtype) -> Tensor:
    """Correlations in a window around a position of each level, bilinear, zero outside (paper section 3.2).

    As ``CorrBlock.index_pyramid`` of torchvision computes them, in another order of sums.

    Args:
        pyramid: Level l: float32 [pairs * h * w, 1, h_l, w_l], correlations of each pixel with all of the other frame.
        radius: Of the window, in cells of each level.
        at: float32 [pairs, 2, h, w]: (x, y) in cells of the first level. What is not finite looks at zeros or NaN, and
            never outside of the memory.
        dtype: Of the result.

    Returns:
        [pairs, levels * (2 radius + 1)^2, h, w], channels last in memory; within a level x is the slower offset.
    """
    pairs, _, height, width = at.shape
    side = 2 * radius + 1
    offset = torch.arange(side * side, device=at.device)
    across, down = offset // side - radius, offset % side - radius
    found = []
    for level, volume in enumerate(pyramid):
        rows, columns = volume.shape[-2:]
        flat = volume.view(pairs * height * width, rows * columns)
        x, y = (at[:, axis].reshape(-1, 1) * 0.5**level for axis in (0, 1))
        # Far away all is zero; bounds keep the integers within their type.
        left = x.floor().clamp(-2.0 - radius, columns + 1.0 + radius)
        top = y.floor().clamp(-2.0 - radius, rows + 1.0 + radius)
        to_right, to_bottom = x - left, y - top
        first_x, first_y = left.long() + across, top.long() + down
        total = torch.zeros((), device=at.device)
        for step_y, weight_y in ((0, 1 - to_bottom), (1, to_bottom)):
            for step_x, weight_x in ((0, 1 - to_right), (1, to_right)):
                cell_x, cell_y = first_x + step_x, first_y + step_y
                inside = (cell_x >= 0) & (cell_x < columns) & (cell_y >= 0) & (cell_y < rows)
                place = cell_y.clamp(0, rows - 1) * columns + cell_x.clamp(0, columns - 1)
                value = torch.gather(flat, 1, place)
                total = total + torch.where(inside, value * (weight_x * weight_y), 0.0)
        found.append(total.to(dtype))
    return torch.cat(found, 1).view(pairs, height, width, -1).permute(0, 3, 1, 2)


class Refinement:
    """Refinement in a short format: copies of the model's update block and mask predictor in it, and a lookup.

    Weights are stored channels last, as convolutions in short formats compute; nothing is cast on the way. Positions
    stay float32: in bfloat16 one beyond 256 is no longer right to a pixel.
    """

    def __init__(self, model: Any, dtype: torch.dtype, *, compiled: bool, lookup: Lookup | None = None) -> None:
        """Copy what is needed of a model; it is not changed.

        Args:
            model: With ``update_block``, ``corr_block`` and maybe ``mask_predictor`` as torchvision's RAFT has them.
            dtype: Of the update block.
            compiled: Whether a step is compiled.
            lookup: In place of the model's own where correlations are laid out as in torchvision's; None: compiled,
                :func:`looked_up`.
        """
        self.dtype = dtype
        self.update = copy.deepcopy(model.update_block).to(dtype=dtype, memory_format=torch.channels_last)
        predictor = getattr(model, "mask_predictor", None)
        self.predictor: Any = None
        if predictor is not None:
            self.predictor = copy.deepcopy(predictor).to(dtype=dtype, memory_format=torch.channels_last)
        self._correlation = model.corr_block
        self._lookup = lookup if lookup is not None or not compiled else looked_up
        self._looks_up = self._lookup is not None and can_look_up(model.corr_block)
        run: Callable[..., tuple[Tensor, Tensor]] = self._looking if self._looks_up else self._moving
        self._run = compiled_for_any_batch(run) if compiled else run

    def step(self, hidden: Tensor, context: Tensor, at: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """One update, with the pyramid that the model's ``corr_block`` holds.

        Args:
            hidden: As :meth:`short` returns it.
            context: As :meth:`short` returns it.
            at: float32 [pairs, 2, h, w], contiguous: where each pixel is taken to have gone.
            start: float32 [pairs, 2, h, w]: where each pixel was.

        Returns:
            The next ``hidden`` and ``at``.
        """
        if self._looks_up:
            return self._run(hidden, context, at, start, *self._correlation.corr_pyramid)
        return self._run(hidden, context, at, start, self.short(sampled(self._correlation, at)))

    def _looking(
        self, hidden: Tensor, context: Tensor, at: Tensor, start: Tensor, *pyramid: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert self._lookup is not None
        correlation = self._lookup(pyramid, self._correlation.radius, at, self.dtype)
        return self._moving(hidden, context, at, start, correlation)

    def _moving(
        self, hidden: Tensor, context: Tensor, at: Tensor, start: Tensor, correlation: Tensor
    ) -> tuple[Tensor, Tensor]:
        hidden, step = self.update(hidden, context, correlation, self.short(at - start))
        return hidden, at + step.float()

    def short(self, state: Tensor) -> Tensor:
        """A state as the update block takes it."""
        return state.to(dtype=self.dtype, memory_format=torch.channels_last)

    def mask(self, hidden: Tensor) -> Tensor | None:
        """Weights for :func:`~planish_egovid.flow.raft.upsampled`, float32; None: the model has none."""
        return None if self.predictor is None else self.predictor(hidden).float()


def sampled(correlation: Any, at: Tensor) -> Tensor:
    """What a model's correlation block itself finds at positions float32 ``[pairs, 2, h, w]``."""
    # cuDNN's sampler takes no more than some 65 000 images, and here each pixel's correlations are one.
    with torch.backends.cudnn.flags(enabled=False):
        found: Tensor = correlation.index_pyramid(centroids_coords=at)
    return found
