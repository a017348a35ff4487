"""A training loop that calls a transform's hooks where a trainer calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from planish.api import LiveTransform

Loss = Callable[[nn.Module, Any], Tensor]
"""``loss(model, batch)``: the scalar to minimise."""


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Return AdamW over all parameters: it carries state, which a resumed run has to bring back."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)


def train(
    model: nn.Module,
    live: LiveTransform | None,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Any],
    loss: Loss,
    *,
    first_step: int = 0,
) -> tuple[list[float], list[Mapping[str, float]]]:
    """Take one optimizer step per batch and return the losses and the transform's metrics, step by step.

    Args:
        model: What is called: the transformed model, or a wrapper of it such as DistributedDataParallel.
        live: The transform at work, or None to train without one.
        optimizer: Over the model's parameters.
        batches: One per step.
        loss: The scalar to minimise.
        first_step: Optimizer steps done before.
    """
    model.train()
    losses: list[float] = []
    metrics: list[Mapping[str, float]] = []
    for step, batch in enumerate(batches, start=first_step):
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if live is not None:
            live.on_gradients(step)
        optimizer.step()
        metrics.append({} if live is None else live.on_step(step + 1))
        losses.append(value.item())
    return losses, metrics
