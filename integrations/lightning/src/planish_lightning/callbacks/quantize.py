"""Quantize: a quantizer during training, or calibrated before evaluation, in any Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import lightning as L
import torch
from planish.api import LiveTransform, applied, apply, resolve
from planish.errors import ConfigError, DataError, PluginError
from planish.interfaces import ModelTransform, Quantizer
from planish.plugins.manager import default_registry
from planish.plugins.registry import Registry
from torch import nn

from planish_lightning.callbacks.transform_callback import TransformCallback, check_open_options


class Quantize(TransformCallback):
    """Applies a quantizer::

        Trainer(callbacks=[Quantize("jetfire")]).fit(lit, data)  # trains in INT8
        Trainer(callbacks=[Quantize("flatquant", calibration_batches=64)]).test(lit, data)  # calibrates, then tests

    A method that quantizes during training is driven like any transform. A post-training method leaves ``fit`` alone
    (checkpoints hold the plain model) and quantizes when it ends; before ``validate``, ``test`` and ``predict`` it
    quantizes the model that is to be evaluated, after its checkpoint has been loaded. Either way it applies,
    calibrates and finishes once, and the model stays quantized.
    """

    def __init__(
        self,
        use: str | Quantizer,
        targets: Sequence[str] | None = None,
        *,
        calibration: Iterable[Any] | None = None,
        calibration_batches: int = 32,
        to_inputs: Callable[[Any], Any] | None = None,
        module: str | None = None,
        registry: Registry | None = None,
        **options: Any,
    ) -> None:
        """Create the callback.

        Args:
            use: Name of an installed quantizer, or a quantizer object.
            targets: Glob patterns over the model's module names; None for what the method would choose.
            calibration: Batches to calibrate on; None for the training batches of the datamodule or of ``fit``.
            calibration_batches: How many are used.
            to_inputs: Turns a batch into what the model's ``forward`` takes (a mapping for keywords); None where
                batches are that already.
            module: Attribute of the LightningModule that holds the model; see :class:`TransformCallback`.
            registry: Where the name is looked up; None for what is installed.
            options: The quantizer's options.

        Raises:
            PluginError: No quantizer has this name.
            ConfigError: An option is wrong.
        """
        super().__init__(module=module)
        if calibration_batches < 1:
            raise ConfigError(f"calibration_batches is {calibration_batches}; expected at least 1")
        if isinstance(use, str):
            (registry or default_registry()).find(use, "quantizer")
        transform = resolve(use, options, registry)[0]
        if not isinstance(transform, Quantizer):
            raise PluginError(f"{transform.name} is no quantizer; use Sparsify or Compose")
        self.transform: Quantizer = transform
        self._use, self._targets, self._options, self._registry = use, targets, options, registry
        self.calibration, self.calibration_batches, self.to_inputs = calibration, calibration_batches, to_inputs

    @property
    def state_key(self) -> str:
        """Key of the callback's state in checkpoints."""
        return f"Quantize[{self.transform.name}]"

    def transforms(self) -> Iterable[ModelTransform]:
        """Return the quantizer."""
        return [self.transform]

    def change(self, model: nn.Module) -> list[LiveTransform]:
        """Apply the quantizer."""
        return [apply(model, self._use, targets=self._targets, registry=self._registry, **self._options)]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Change the model, if the method trains it; otherwise see that there will be batches to calibrate on."""
        if not self.transform.needs_calibration:
            super().setup(trainer, pl_module, stage)
            return
        check_open_options(self.transform)
        if not self._done(pl_module) and self.calibration is None and stage != "fit" and not _has_train(trainer):
            raise DataError(
                f"Quantize({self.transform.name!r}) has nothing to calibrate on: the run has no training batches; "
                "pass calibration=batches, or a datamodule with train_dataloader()"
            )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Quantize before ``Trainer.validate``; validation within ``fit`` sees the plain model."""
        if trainer.state.fn is not None and trainer.state.fn.value == "validate":
            self._quantize(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Quantize before ``Trainer.test``."""
        self._quantize(trainer, pl_module)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Quantize before ``Trainer.predict``."""
        self._quantize(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Quantize the trained model."""
        self._quantize(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record a method that trains; before a post-training one has run, the model is plain."""
        if self.live:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def _done(self, pl_module: L.LightningModule) -> bool:
        present = [id(live) for live in applied(self.model(pl_module))]
        return bool(self.live) and all(id(live) in present for live in self.live)

    def _quantize(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.transform.needs_calibration or self._done(pl_module):
            return
        model = self.model(pl_module)
        modes = {module: module.training for module in model.modules()}
        # The Trainer evaluates in inference mode, in which no tensor can be made that is changed or trained later.
        with torch.inference_mode(False):
            self.live = self.change(model)
            model.to(pl_module.device)
            model.eval()
            quantizer = self.live[0].transform
            assert isinstance(quantizer, Quantizer)
            quantizer.calibrate(model, self._batches(trainer, pl_module))
            self.live[0].finish()
        for module in model.modules():
            module.training = modes.get(module, model.training)

    def _batches(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[Any]:
        source = self.calibration if self.calibration is not None else _train_batches(trainer)
        empty = True
        for batch in islice(source, self.calibration_batches):
            empty = False
            moved = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
            yield moved if self.to_inputs is None else self.to_inputs(moved)
        if empty:
            raise DataError(f"Quantize({self.transform.name!r}): there is no batch to calibrate on")


def _has_train(trainer: L.Trainer) -> bool:
    datamodule = getattr(trainer, "datamodule", None)
    return datamodule is not None and type(datamodule).train_dataloader is not L.LightningDataModule.train_dataloader


def _train_batches(trainer: L.Trainer) -> Iterable[Any]:
    datamodule = getattr(trainer, "datamodule", None)
    if datamodule is not None and _has_train(trainer):
        batches: Iterable[Any] = datamodule.train_dataloader()
        return batches
    loader: Iterable[Any] = trainer.fit_loop._data_source.dataloader()
    return loader
