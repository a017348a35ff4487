"""Clauses on state: it lives in parameters and buffers, so that copies, checkpoints and resumed runs are exact."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import torch
from torch import nn

import planish
from planish.api import LiveTransform, applied
from planish.testing.clause import not_claimed, require
from planish.testing.comparison import difference
from planish.testing.training import make_optimizer, train
from planish.testing.transform.subject import TransformSubject


class StateClauses(TransformSubject):
    """Copying, saving, loading and resuming give the same model, bit for bit."""

    def test_deepcopy_is_equal_and_apart(self) -> None:
        """A deep copy gives equal outputs and shares no memory with the original (claim ``deepcopy``)."""
        if "deepcopy" not in self.plugin.survives:
            not_claimed("survives does not claim deepcopy")
        model, _ = self.trained()
        expected = self.evaluate(model)
        try:
            twin = copy.deepcopy(model)
        except Exception as error:
            twin = model
            require(False, f"deepcopy(model) raised {type(error).__name__}: {error}")
        require(torch.equal(self.evaluate(twin), expected), "deepcopy(model) gives other outputs than the model")
        with torch.no_grad():
            for tensor in (*twin.parameters(), *twin.buffers()):
                tensor.zero_()
        require(
            torch.equal(self.evaluate(model), expected),
            "changing the tensors of deepcopy(model) changed the model; keep references to modules out of closures",
        )

    def test_pickle_is_equal(self) -> None:
        """A pickled and unpickled model gives equal outputs (claim ``pickle``)."""
        if "pickle" not in self.plugin.survives:
            not_claimed("survives does not claim pickle")
        model, _ = self.trained()
        try:
            again = pickle.loads(pickle.dumps(model))
        except Exception as error:
            again = None
            require(
                False, f"the model does not pickle: {type(error).__name__}: {error}; define classes at module level"
            )
        require(torch.equal(self.evaluate(again), self.evaluate(model)), "the unpickled model gives other outputs")

    def test_checkpoint_is_equal(self, tmp_path: Path) -> None:
        """``planish.save`` and ``planish.load`` give equal tensors and outputs."""
        model, _ = self.trained()
        again = self._through_disk(model, tmp_path)
        gap = difference(again.state_dict(), model.state_dict())
        require(not gap, f"after save and load, {gap}")
        require(
            torch.equal(self.evaluate(again), self.evaluate(model)),
            "the loaded model gives other outputs; keep all that they depend on in parameters and buffers",
        )

    def test_resume_is_bit_exact(self, tmp_path: Path) -> None:
        """A run that was stopped and resumed from its checkpoint ends with the same bits as one that was not."""
        if not self.trains:
            not_claimed("trains is False")
        half, batches = self.steps // 2, self.make_batches(self.steps)

        straight, live = self.transformed()
        torch.manual_seed(30)
        live.on_train_start(self.steps)
        optimizer = make_optimizer(straight, self.learning_rate)
        _, expected = train(straight, live, optimizer, batches, self.loss)

        stopped, live = self.transformed()
        torch.manual_seed(30)
        live.on_train_start(self.steps)
        optimizer = make_optimizer(stopped, self.learning_rate)
        train(stopped, live, optimizer, batches[:half], self.loss)
        kept = optimizer.state_dict(), torch.get_rng_state()
        resumed = self._through_disk(stopped, tmp_path)
        live = only_transform(resumed)
        optimizer = make_optimizer(resumed, self.learning_rate)
        optimizer.load_state_dict(kept[0])
        torch.manual_seed(31)  # whatever a new process starts with
        live.on_train_start(self.steps)
        torch.set_rng_state(kept[1])
        _, found = train(resumed, live, optimizer, batches[half:], self.loss, first_step=half)

        advice = "keep schedules and statistics in buffers, not in attributes of the transform"
        gap = difference(resumed.state_dict(), straight.state_dict())
        require(not gap, f"after a resume at step {half}, {gap}; {advice}")
        require(
            [dict(m) for m in found] == [dict(m) for m in expected[half:]],
            f"after a resume at step {half}, on_step() reports other metrics; {advice}",
        )

    def _through_disk(self, model: nn.Module, folder: Path) -> nn.Module:
        registry = self.own_registry()
        planish.save(model, folder / "checkpoint", registry=registry)
        return planish.load(folder / "checkpoint", self.make_model(), registry=registry)


def only_transform(model: nn.Module) -> LiveTransform:
    """Return the one transform at work on a loaded model."""
    (live,) = applied(model)
    return live
