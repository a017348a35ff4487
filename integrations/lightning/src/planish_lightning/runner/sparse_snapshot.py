"""Keeping the last checkpoint in which weights are sparse, for methods that end dense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from planish.checkpoint import save
from planish.interfaces import Sparsifier
from planish.plugins.registry import Registry
from planish.recipe.schema import ModelSpec

from planish_lightning.callbacks import TransformCallback


class SparseSnapshot(L.Callback):
    """Saves the model, masks included, at each validation as long as it has masks.

    Attributes:
        step: Optimizer step of the last save; None before the first.
    """

    def __init__(
        self, folder: Path, transforms: TransformCallback, model_spec: ModelSpec | None, registry: Registry
    ) -> None:
        """Create the callback.

        Args:
            folder: Where to; each save replaces the one before.
            transforms: Those whose masks are asked for.
            model_spec: How the model is built.
            registry: Where model sources are looked up.
        """
        self.folder, self.transforms, self.model_spec, self.registry = folder, transforms, model_spec, registry
        self.step: int | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if there are masks."""
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        live = [each for each in self.transforms.live if isinstance(each.transform, Sparsifier)]
        if any(each.transform.masks(each.model) for each in live if isinstance(each.transform, Sparsifier)):
            save(live[0].model, self.folder, model_spec=self.model_spec, registry=self.registry)
            self.step = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last save."""
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the step of the last save."""
        self.step = state_dict["step"]
