"""Quantizer: transforms that change the number format of weights, activations or gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from planish.errors import UnsupportedError
from planish.interfaces.transform import ModelTransform, Progress


class Quantizer(ModelTransform):
    """A transform of number formats, after training (with calibration) or during it (without)."""

    needs_calibration: bool = False
    """Whether :meth:`calibrate` must run between ``apply`` and ``finish``."""

    def calibrate(self, model: nn.Module, batches: Iterable[Any], progress: Progress | None = None) -> None:
        """Fit the method's free parameters on sample batches.

        Args:
            model: The model after ``apply``.
            batches: What the model's ``forward`` takes: mappings are passed as keywords, other values positionally.
            progress: Called with ``(done, total, what)``.

        Raises:
            UnsupportedError: The method trains its model and has nothing to calibrate.
        """
        raise UnsupportedError(
            f"{self.name} quantizes during training and has nothing to calibrate; call finish() after training"
        )
