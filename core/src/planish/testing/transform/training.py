"""Clauses on training under a transform: it learns, accumulates, reports, and never stops a run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import planish
from planish.interfaces.transform import ModelTransform
from planish.testing.clause import not_claimed, require
from planish.testing.comparison import relative_error
from planish.testing.training import make_optimizer, train
from planish.testing.transform.subject import TransformSubject


class TrainingClauses(TransformSubject):
    """What a training loop may rely on."""

    def test_gradients_reach_the_same_parameters(self) -> None:
        """Each parameter that had a gradient without the transform has a finite one with it."""
        if not self.trains:
            not_claimed("trains is False")
        plain = self._gradients(self.make_model())
        model, _ = self.transformed()
        found = self._gradients(model)
        for name, parameter in model.named_parameters():
            if name in plain and name not in found and parameter.requires_grad:
                require(False, f"{name!r} gets no gradient under the transform; use a straight-through estimator")
        wrong = [name for name, grad in found.items() if not torch.isfinite(grad).all()]
        require(not wrong, f"the gradient of {wrong[:3]} has infinite or NaN values")

    def test_training_lowers_the_loss(self) -> None:
        """Training on one batch over and over lowers its loss."""
        if not self.trains:
            not_claimed("trains is False")
        model, live = self.transformed()
        steps = max(10, self.steps)
        live.on_train_start(steps)
        optimizer = make_optimizer(model, self.learning_rate)
        losses, _ = train(model, live, optimizer, self.make_batches(1) * steps, self.loss)
        require(
            losses[-1] < losses[0],
            f"{steps} steps on one batch took the loss from {losses[0]:.4f} to {losses[-1]:.4f}; expected a lower one",
        )

    def test_gradients_accumulate(self) -> None:
        """Gradients of two half batches add up to those of the whole: nothing changes between micro-steps."""
        if not self.trains:
            not_claimed("trains is False")
        batch = self.make_batches(1)[0]
        whole, _ = self.transformed()
        expected = self._gradients(whole, batch)
        model, _ = self.transformed()
        model.train()
        halves = self.split_batch(batch)
        if self.accumulation_tolerance is None:
            torch.manual_seed(30)
            first = self.loss(model, halves[0]).item()
            torch.manual_seed(30)
            again = self.loss(model, halves[0]).item()
            require(first == again, f"two micro-steps on one batch and seed gave the losses {first} and {again}")
            return
        for half in halves:
            (self.loss(model, half) / len(halves)).backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if name in expected and parameter.grad is not None:
                gap = relative_error(parameter.grad, expected[name])
                require(
                    gap <= self.accumulation_tolerance,
                    f"the accumulated gradient of {name!r} differs by {gap:.2g} (relative RMS) from the whole batch's; "
                    "forward and backward must not change state, on_step() may",
                )

    def test_metrics_are_finite_floats(self) -> None:
        """``on_step`` returns a mapping of names to finite Python floats."""
        model, live = self.transformed()
        if self.trains:
            live.on_train_start(self.steps)
            batches = self.make_batches(self.steps)
            _, reported = train(model, live, make_optimizer(model, self.learning_rate), batches, self.loss)
        else:
            reported = [live.on_step(step) for step in range(1, self.steps + 1)]
        for step, metrics in enumerate(reported, start=1):
            for name, value in metrics.items():
                require(
                    isinstance(name, str) and type(value) in (float, int) and math.isfinite(value),
                    f"on_step() reported {name!r} = {value!r} after step {step}; expected a finite Python float",
                )

    def test_on_step_outlives_the_schedule(self) -> None:
        """``on_step`` may be called beyond the announced number of steps, and twice for one step."""
        model, live = self.transformed()
        live.on_train_start(self.steps)
        for step in (*range(1, self.steps + 1), self.steps, *range(self.steps + 1, 3 * self.steps)):
            try:
                live.on_step(step)
            except Exception as error:
                require(
                    False,
                    f"on_step({step}) of {self.steps} announced steps raised {type(error).__name__}: {error}; "
                    "a run may go on for longer, or repeat a step",
                )
        require(torch.isfinite(self.evaluate(model)).all(), "after calls of on_step() alone the output is not finite")

    def test_search_returns_a_closed_transform(self) -> None:
        """``search`` returns a transform with nothing left open; with nothing open it runs no trial."""
        trials: list[int] = []

        def trial(transform: ModelTransform, steps: int) -> list[dict[str, float]]:
            trials.append(steps)
            model = self.make_model()
            live = planish.apply(model, transform, targets=self.targets)
            live.on_train_start(steps)
            torch.manual_seed(30)
            optimizer = make_optimizer(model, self.learning_rate)
            losses, metrics = train(model, live, optimizer, self.make_batches(steps), self.loss)
            return [{"loss": loss, **dict(m)} for loss, m in zip(losses, metrics, strict=True)]

        plugin = self.make_plugin()
        if not plugin.needs_search:
            found = plugin.search(trial)
            require(not trials, "needs_search is false and yet search() ran trials")
            require(
                isinstance(found, self.plugin) and found.config == plugin.config,
                f"with nothing to search, search() returned {found!r}; return the transform itself",
            )
        if self.search_options is not None:
            open_plugin = self.make_plugin(**self.search_options)
            require(open_plugin.needs_search, f"needs_search is false under search_options {self.search_options}")
            found = open_plugin.search(trial)
            require(
                isinstance(found, self.plugin) and not found.needs_search,
                "search() returned a transform that still needs a search; put the chosen value into its options",
            )

    def test_observer_changes_nothing(self) -> None:
        """``observer()`` leaves the baseline's training as it is, bit for bit."""
        observer = self.make_plugin().observer()
        if observer is None:
            not_claimed("there is no observer")
        losses: list[list[float]] = []
        for watched in (False, True):
            model = self.make_model()
            live = planish.apply(model, observer, targets=self.targets) if watched else None
            if live is not None:
                live.on_train_start(self.steps)
            torch.manual_seed(30)
            optimizer = make_optimizer(model, self.learning_rate)
            losses.append(train(model, live, optimizer, self.make_batches(self.steps), self.loss)[0])
        require(losses[0] == losses[1], f"under the observer the losses are {losses[1]}, without it {losses[0]}")

    def _gradients(self, model: nn.Module, batch: Any = None) -> dict[str, Tensor]:
        model.train()
        torch.manual_seed(30)
        batch = self.make_batches(1)[0] if batch is None else batch
        self.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        return {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}
