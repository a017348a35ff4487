"""ApplyTransforms: transform objects, in any Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from planish.api import LiveTransform, apply
from planish.interfaces import ModelTransform
from torch import nn

from planish_lightning.callbacks.transform_callback import TransformCallback


class ApplyTransforms(TransformCallback):
    """Applies transform objects in order; for those that are registered under a name there is :class:`Compose`."""

    def __init__(
        self, chosen: Sequence[tuple[ModelTransform, Sequence[str] | None]], *, module: str | None = None
    ) -> None:
        """Create the callback.

        Args:
            chosen: Each transform with its targets; None for what the method would choose.
            module: Attribute of the LightningModule that holds the model; see :class:`TransformCallback`.
        """
        super().__init__(module=module)
        self._chosen = list(chosen)

    def transforms(self) -> Iterable[ModelTransform]:
        """Return the transforms."""
        return [transform for transform, _ in self._chosen]

    def change(self, model: nn.Module) -> list[LiveTransform]:
        """Apply them in order."""
        return [apply(model, transform, targets=targets) for transform, targets in self._chosen]
