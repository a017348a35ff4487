"""Trial runs in a plain training loop, for searching options without a trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import planish
import torch
from planish.errors import DataError
from planish.interfaces import ModelTransform
from planish.interfaces.transform import Trial
from torch import Tensor, nn

Batch = TypeVar("Batch")


def plain_trial(
    make_model: Callable[[], nn.Module],
    batches: Callable[[], Iterable[Batch]],
    loss: Callable[[nn.Module, Batch], Tensor],
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    make_schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
    clip_norm: float | None = 1.0,
) -> Trial:
    """Make the ``trial`` that :func:`planish_pretrain24.find_decay` asks for, from the pieces of a training loop.

    Args:
        make_model: A fresh model, with the same weights at every call.
        batches: The run's batches from the first on, the same at every call; one for each optimizer step.
        loss: The scalar loss of a batch.
        make_optimizer: An optimizer over the model's parameters.
        make_schedule: The run's own learning-rate schedule (not shortened to the trial), stepped after each step.
        clip_norm: Largest gradient norm; None does not clip.

    Returns:
        ``trial(transform, steps)``, which raises DataError if the batches end early.
    """

    def trial(transform: ModelTransform, steps: int) -> list[dict[str, float]]:
        model = make_model()
        live = planish.apply(model, transform)
        optimizer = make_optimizer(model)
        schedule = None if make_schedule is None else make_schedule(optimizer)
        model.train()
        live.on_train_start(steps)
        metrics: list[dict[str, float]] = []
        for step, batch in zip(range(steps), batches(), strict=False):
            loss(model, batch).backward()  # type: ignore[no-untyped-call]
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            live.on_gradients(step)
            optimizer.step()
            optimizer.zero_grad()
            if schedule is not None:
                schedule.step()
            metrics.append(dict(live.on_step(step + 1)))
        if len(metrics) < steps:
            raise DataError(f"the batches ended after {len(metrics)} of {steps} trial steps; give more, or repeat them")
        return metrics

    return trial
