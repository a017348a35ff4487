"""Clauses on dtype and device: a transformed model moves as any other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import planish
from planish.errors import PlanishError
from planish.testing.clause import not_claimed, require
from planish.testing.comparison import relative_error
from planish.testing.transform.subject import TransformSubject


class PlacementClauses(TransformSubject):
    """Moving before ``apply`` or after it works in each claimed dtype, on meta tensors and on a GPU."""

    def test_moves_to_each_dtype(self) -> None:
        """A transformed model runs after ``.to(dtype)``, for each of ``dtypes``."""
        for dtype in self.dtypes:
            model, _ = self.transformed()
            self._run_in(model.to(dtype), dtype, f"moved to {dtype} after apply()")

    def test_applies_in_each_dtype(self) -> None:
        """``apply`` works on a model of each of ``dtypes``, and its state follows the model's."""
        for dtype in self.dtypes:
            model = self.make_model().to(dtype)
            self.apply_to(model)
            self._run_in(model, dtype, f"applied to a {dtype} model")

    def test_applies_on_meta(self) -> None:
        """On a model without memory (meta tensors) ``apply`` allocates none, or refuses with a PlanishError."""
        model = self.make_model().to("meta")
        try:
            planish.apply(model, self.make_plugin(), targets=self.targets)
        except PlanishError:
            return
        except Exception as error:
            require(
                False,
                f"on meta tensors apply() raised {type(error).__name__}: {error}; support it or raise UnsupportedError",
            )
        allocated = [name for name, tensor in model.state_dict().items() if not tensor.is_meta]
        require(not allocated, f"on a meta model apply() allocated {allocated[:3]}; create state on weight.device")
        twin = self.make_model()
        planish.apply(twin, self.make_plugin(), targets=self.targets)
        require(
            list(model.state_dict()) == list(twin.state_dict()),
            "on a meta model apply() makes another state dict than on a real one",
        )

    @pytest.mark.gpu
    def test_moves_to_the_gpu(self) -> None:
        """A transformed model moved to a GPU gives the CPU's outputs, and comes back."""
        if not torch.cuda.is_available():
            not_claimed("no CUDA device on this machine")
        model, _ = self.trained()
        here = self.evaluate(model)
        model.cuda()
        model.eval()
        batch = {name: tensor.cuda() for name, tensor in self.make_batches(1)[0].items()}
        try:
            with torch.no_grad():
                there = self.output(model, batch).cpu()
        except Exception as error:
            there = here
            advice = "keep tensors in parameters and buffers"
            require(False, f"moved to the GPU, the model raised {type(error).__name__}: {error}; {advice}")
        require(relative_error(there, here) < 1e-2, "on the GPU the model gives other outputs than on the CPU")
        require(torch.equal(self.evaluate(model.cpu()), here), "back from the GPU the model gives other outputs")

    def _run_in(self, model: nn.Module, dtype: torch.dtype, how: str) -> None:
        try:
            output = self.evaluate(model)
        except Exception as error:
            require(
                False, f"{how}, the model raised {type(error).__name__}: {error}; let new tensors follow the weight"
            )
        require(
            output.dtype == dtype, f"{how}, the output is {output.dtype}; let new tensors follow the weight's dtype"
        )
        require(torch.isfinite(output).all(), f"{how}, the output is not finite")
