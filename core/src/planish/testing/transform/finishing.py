"""Clauses on ``finish``: it makes the deployable form, once."""

from __future__ import annotations

from pathlib import Path

import torch

import planish
from planish.testing.clause import require
from planish.testing.comparison import clone_state, difference, relative_error
from planish.testing.transform.subject import TransformSubject


class FinishingClauses(TransformSubject):
    """The finished model is plain, stable, and loads again."""

    def test_finish_keeps_the_output(self) -> None:
        """``finish`` changes the output by at most ``finish_tolerance``; it stays finite and shaped in any case."""
        model, live = self.trained()
        before = self.evaluate(model)
        planish.finish(live)
        after = self.evaluate(model)
        require(
            after.shape == before.shape and torch.isfinite(after).all(),
            f"after finish() the output is {list(after.shape)} or not finite; it was {list(before.shape)}",
        )
        if self.finish_tolerance is not None:
            gap = relative_error(after, before)
            require(
                gap <= self.finish_tolerance,
                f"finish() changed the output by {gap:.3g} (relative RMS), more than finish_tolerance = "
                f"{self.finish_tolerance}",
            )

    def test_finish_is_idempotent(self) -> None:
        """A second ``finish`` changes nothing, and does not raise."""
        model, live = self.trained()
        live.transform.finish(model)
        state, output = clone_state(model.state_dict()), self.evaluate(model)
        try:
            live.transform.finish(model)
        except Exception as error:
            require(False, f"the second finish() raised {type(error).__name__}: {error}")
        gap = difference(model.state_dict(), state)
        require(not gap, f"the second finish() changed the state dict: {gap}")
        require(torch.equal(self.evaluate(model), output), "the second finish() changed the output")

    def test_finished_checkpoint_is_equal(self, tmp_path: Path) -> None:
        """A finished model saved with ``planish.save`` loads with equal tensors and outputs."""
        model, live = self.trained()
        planish.finish(live)
        registry = self.own_registry()
        planish.save(model, tmp_path / "finished", registry=registry)
        try:
            again = planish.load(tmp_path / "finished", self.make_model(), registry=registry)
        except Exception as error:
            again = model
            require(False, f"the finished model does not load: {type(error).__name__}: {error}")
        gap = difference(again.state_dict(), model.state_dict())
        require(not gap, f"after save and load of the finished model, {gap}")
        require(
            torch.equal(self.evaluate(again), self.evaluate(model)), "the loaded finished model gives other outputs"
        )
