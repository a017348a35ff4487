"""Sparsify: one sparsifier, in any Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from planish.api import LiveTransform, apply, resolve
from planish.errors import PluginError
from planish.interfaces import ModelTransform, Sparsifier
from planish.plugins.manager import default_registry
from planish.plugins.registry import Registry
from torch import Tensor, nn

from planish_lightning.callbacks.transform_callback import TransformCallback


class Sparsify(TransformCallback):
    """Trains with a sparsifier::

    Trainer(callbacks=[Sparsify("pretrain24", targets=["*.mlp.*"], dense_finish=0.2)])
    """

    def __init__(
        self,
        use: str | Sparsifier,
        targets: Sequence[str] | None = None,
        *,
        module: str | None = None,
        registry: Registry | None = None,
        compare_masks_every: int = 1000,
        **options: Any,
    ) -> None:
        """Create the callback.

        Args:
            use: Name of an installed sparsifier, or a sparsifier object.
            targets: Glob patterns over the model's module names; None for what the method would choose.
            module: Attribute of the LightningModule that holds the model; see :class:`TransformCallback`.
            registry: Where the name is looked up; None for what is installed.
            compare_masks_every: Optimizer steps between comparisons of masks over ranks.
            options: The sparsifier's options.

        Raises:
            PluginError: No sparsifier has this name.
            ConfigError: An option is wrong.
        """
        super().__init__(module=module, compare_masks_every=compare_masks_every)
        self._registry = registry
        if isinstance(use, str):
            (registry or default_registry()).find(use, "sparsifier")
        self._use, self._targets, self._options = use, targets, options
        self.transform = resolve(use, options, registry)[0]
        if not isinstance(self.transform, Sparsifier):
            raise PluginError(f"{self.transform.name} is no sparsifier; use Quantize or Compose")

    @property
    def state_key(self) -> str:
        """Key of the callback's state in checkpoints: several sparsifiers may train together."""
        return f"Sparsify[{self.transform.name}]"

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """The masks at this moment, by parameter name (True: kept); empty before ``setup``."""
        return {
            name: mask
            for live in self.live
            if isinstance(live.transform, Sparsifier)
            for name, mask in live.transform.masks(live.model).items()
        }

    def transforms(self) -> Iterable[ModelTransform]:
        """Return the sparsifier."""
        return [self.transform]

    def change(self, model: nn.Module) -> list[LiveTransform]:
        """Apply the sparsifier."""
        return [apply(model, self._use, targets=self._targets, registry=self._registry, **self._options)]
