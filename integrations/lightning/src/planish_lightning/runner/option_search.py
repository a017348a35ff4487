"""Deciding a recipe's open options by trial runs, before the run itself."""

from __future__ import annotations

from typing import Any

import lightning as L
from planish.api import resolve
from planish.errors import UnsupportedError
from planish.interfaces import ModelTransform
from planish.interfaces.transform import Progress
from planish.recipe.schema import TransformSpec

from planish_lightning.callbacks import ApplyTransforms, Compose
from planish_lightning.runner.workshop import Workshop


def decide_open_options(workshop: Workshop, progress: Progress) -> tuple[list[TransformSpec], list[str]]:
    """Return the recipe's transforms with every open option decided, and remarks on how.

    A transform is searched on the model that its predecessors left, with the run's own data order, seed and
    learning-rate schedule.

    Raises:
        UnsupportedError: There is more than one device, and an option to search.
    """
    decided: list[TransformSpec] = []
    notes: list[str] = []
    for spec in workshop.recipe.transforms:
        transform, _, _ = resolve(spec.use, spec.config, workshop.registry)
        if not transform.needs_search:
            decided.append(spec)
            continue
        if workshop.config.devices > 1:
            raise UnsupportedError(
                f"{spec.use}: trial runs use one device and trainer.devices is {workshop.config.devices}; find the "
                "option with trainer.devices=1 and put it into the recipe"
            )
        earlier = tuple(decided)

        def trial(
            changed: ModelTransform,
            steps: int,
            *,
            earlier: tuple[TransformSpec, ...] = earlier,
            targets: tuple[str, ...] | None = spec.targets,
        ) -> list[dict[str, float]]:
            return _train(workshop, earlier, changed, targets, steps)

        found = transform.search(trial, progress)
        before = set(transform.plan(workshop.model(), spec.targets).notes)
        notes += [note for note in found.plan(workshop.model(), spec.targets).notes if note not in before]
        decided.append(spec.model_copy(update={"config": found.config.model_dump(mode="json")}))
    return decided, notes


def _train(
    workshop: Workshop,
    earlier: tuple[TransformSpec, ...],
    changed: ModelTransform,
    targets: tuple[str, ...] | None,
    steps: int,
) -> list[dict[str, float]]:
    applied = ApplyTransforms([(changed, targets)])
    gathered = _Gather(applied)
    before: list[L.Callback] = [Compose(earlier, registry=workshop.registry)] if earlier else []
    trainer = workshop.trainer([*before, applied, gathered], max_steps=steps, limit_val_batches=0)
    trainer.fit(workshop.lit(workshop.model()), datamodule=workshop.data)
    return gathered.metrics


class _Gather(L.Callback):
    """Keeps the metrics of each step."""

    def __init__(self, source: ApplyTransforms) -> None:
        self.source = source
        self.metrics: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.source.steps > len(self.metrics):
            self.metrics.append({name.partition("/")[2]: value for name, value in self.source.metrics.items()})
