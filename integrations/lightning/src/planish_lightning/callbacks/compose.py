"""Compose: all transforms of a recipe, in any Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from planish.api import LiveTransform, apply, resolve
from planish.config import validate
from planish.interfaces import ModelTransform
from planish.plugins.manager import default_registry
from planish.plugins.registry import Registry
from planish.recipe import Recipe, TransformSpec, read_recipe
from planish.recipe.compose import plan_all
from torch import nn

from planish_lightning.callbacks.transform_callback import TransformCallback


class Compose(TransformCallback):
    """Applies the transforms of a recipe and drives them through the run::

        Trainer(callbacks=[Compose("recipe.yaml")])
        Trainer(callbacks=[Compose([{"use": "pretrain24", "targets": ["*.mlp.*"]}])])

    All claims are checked before anything is changed. Of a recipe only ``transforms`` is read; model, data and
    training are the caller's.
    """

    def __init__(
        self,
        recipe: str | Path | Recipe | Sequence[str | Mapping[str, Any] | TransformSpec],
        *,
        module: str | None = None,
        registry: Registry | None = None,
        compare_masks_every: int = 1000,
    ) -> None:
        """Create the callback.

        Args:
            recipe: A recipe, the path of one, or a list of transforms: names, mappings as in a recipe, or specs.
            module: Attribute of the LightningModule that holds the model; see :class:`TransformCallback`.
            registry: Where names are looked up; None for what is installed.
            compare_masks_every: Optimizer steps between comparisons of masks over ranks.

        Raises:
            ConfigError: The recipe cannot be read, or an entry is wrong.
        """
        super().__init__(module=module, compare_masks_every=compare_masks_every)
        self.specs = _specs(recipe)
        self._registry = registry

    def transforms(self) -> Iterable[ModelTransform]:
        """Return the transforms with their options, not yet applied."""
        registry = self._registry or default_registry()
        return [resolve(spec.use, spec.config, registry)[0] for spec in self.specs]

    def change(self, model: nn.Module) -> list[LiveTransform]:
        """Check all claims, then apply in order."""
        registry = self._registry or default_registry()
        plan_all(model, self.specs, registry)
        return [apply(model, spec.use, targets=spec.targets, registry=registry, **spec.config) for spec in self.specs]


def _specs(recipe: str | Path | Recipe | Sequence[str | Mapping[str, Any] | TransformSpec]) -> list[TransformSpec]:
    if isinstance(recipe, Recipe):
        return list(recipe.transforms)
    if isinstance(recipe, str | Path):
        return list(read_recipe(Path(recipe)).transforms)
    entries = [{"use": entry} if isinstance(entry, str) else entry for entry in recipe]
    return [validate(TransformSpec, entry, where=f"transforms[{place}]") for place, entry in enumerate(entries)]
