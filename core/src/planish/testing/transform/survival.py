"""Clauses on what a transform claims to survive: ``torch.compile``, data-parallel and sharded training."""

from __future__ import annotations

import torch

from planish.testing.clause import not_claimed, require
from planish.testing.comparison import clone_state, relative_error
from planish.testing.training import make_optimizer, train
from planish.testing.transform.subject import TransformSubject
from planish.testing.two_processes import run_on_two


class SurvivalClauses(TransformSubject):
    """What ``survives`` claims is tried."""

    def test_survives_is_known(self) -> None:
        """``survives`` names only what the suite knows how to try."""
        known = {"deepcopy", "pickle", "compile", "ddp", "fsdp"}
        unknown = set(self.plugin.survives) - known
        require(not unknown, f"survives claims {sorted(unknown)}; known claims are {sorted(known)}")

    def test_survives_compile(self) -> None:
        """``torch.compile`` traces the model whole, with the eager outputs and gradients (claim ``compile``)."""
        if "compile" not in self.plugin.survives:
            not_claimed("survives does not claim compile")
        model, _ = self.transformed()
        batch = self.make_batches(1)[0]
        grads = []
        losses = []
        before = clone_state(model.state_dict())
        torch._dynamo.reset()
        for compiled in (False, True):
            model.load_state_dict(before)  # counters of random draws too
            model.zero_grad()
            torch.manual_seed(30)
            called = torch.compile(model, fullgraph=True, backend=self.compile_backend) if compiled else model
            try:
                value = self.loss(called, batch)  # type: ignore[arg-type]
                value.backward()  # type: ignore[no-untyped-call]
            except Exception as error:
                first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
                require(False, f"torch.compile(fullgraph=True) raised {type(error).__name__}: {first_line}")
            losses.append(value.item())
            grads.append({n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None})
        require(
            abs(losses[1] - losses[0]) <= 1e-4 * abs(losses[0]),
            f"compiled, the loss is {losses[1]:.6f}; eager it is {losses[0]:.6f}",
        )
        for name, expected in grads[0].items():
            found = grads[1].get(name)
            require(found is not None, f"compiled, {name!r} gets no gradient")
            gap = relative_error(found, expected)  # type: ignore[arg-type]
            require(gap <= 1e-3, f"compiled, the gradient of {name!r} differs by {gap:.2g} (relative RMS)")

    def test_survives_parallel_training(self) -> None:
        """Two processes (gloo) that train together stay equal, and equal one process (claims ``ddp``, ``fsdp``)."""
        claimed = [wrapper for wrapper in ("ddp", "fsdp") if wrapper in self.plugin.survives]
        if not (claimed and self.trains):
            not_claimed("survives claims neither ddp nor fsdp")
        where = type(self).__qualname__
        require("<locals>" not in where, f"{where} cannot be found by another process; define it at module level")
        model, live = self.transformed()
        live.on_train_start(self.steps)
        torch.manual_seed(30)
        train(model, live, make_optimizer(model, self.learning_rate), self.make_batches(self.steps), self.loss)
        alone = {name: parameter.detach() for name, parameter in model.named_parameters()}
        answers = run_on_two(type(self), claimed)
        for wrapper in claimed:
            first, second = (answer[wrapper] for answer in answers)
            if isinstance(first, str) or isinstance(second, str):
                require(False, f"under {wrapper} a process failed: {first if isinstance(first, str) else second}")
                continue
            for name, value in first.items():
                require(
                    torch.equal(value, second[name]),
                    f"after {wrapper} training {name!r} differs between the two processes; derive state from "
                    "parameters and averaged gradients only",
                )
            if self.ddp_tolerance is None:
                continue
            for name, value in alone.items():
                gap = relative_error(first[name], value)
                require(
                    gap <= self.ddp_tolerance,
                    f"after {wrapper} training on two halves {name!r} differs by {gap:.2g} (relative RMS) from "
                    "training in one process on the whole batch",
                )
