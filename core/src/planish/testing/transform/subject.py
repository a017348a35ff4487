"""What the clauses of a transform work on: model, batches, loss, and the plugin applied to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import planish
from planish.api import LiveTransform
from planish.interfaces.plan import Plan
from planish.testing.plugin_contract import PluginContract
from planish.testing.tiny_transformer import TinyTransformer, token_batches
from planish.testing.training import make_optimizer, train


class TransformSubject(PluginContract):
    """Factories and claims of a transform's suite. Override what does not fit your method."""

    targets: ClassVar[Sequence[str] | None] = None
    """Glob patterns handed to ``plan``; None for what the method would choose."""

    trains: ClassVar[bool] = True
    """Whether a model can be trained under the transform."""

    steps: ClassVar[int] = 6
    """Optimizer steps of the training clauses, at least 2; make it long enough to meet each phase of a schedule."""

    learning_rate: ClassVar[float] = 3e-3
    """Of AdamW in the training clauses."""

    keeps_parameters: ClassVar[bool] = True
    """Whether ``apply`` keeps the identity of every parameter."""

    finish_tolerance: ClassVar[float | None] = 1e-5
    """Largest relative RMS change of the output by ``finish``; None where finishing changes it on purpose."""

    accumulation_tolerance: ClassVar[float | None] = 1e-4
    """Largest relative RMS difference of accumulated gradients from those of the whole batch; None where rounding
    draws random numbers or scales depend on the batch."""

    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.bfloat16)
    """Dtypes in which a transformed model runs."""

    search_options: ClassVar[dict[str, Any] | None] = None
    """Options under which ``needs_search`` is true, if there are such."""

    compile_backend: ClassVar[str] = "aot_eager"
    """Backend of the ``torch.compile`` clause: traces forward and backward, needs no C++ compiler."""

    ddp_tolerance: ClassVar[float | None] = 1e-3
    """Largest relative RMS difference of parameters after data-parallel training from training in one process on the
    whole batch; None where each process draws its own random numbers."""

    def make_model(self) -> nn.Module:
        """Return a new, untransformed model in float32 on the CPU; the same weights on each call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(10)
            return TinyTransformer()

    def make_batches(self, count: int) -> list[Any]:
        """Return ``count`` batches, the same on each call. A mapping is passed to ``forward`` as keywords."""
        return list(token_batches(count))

    def split_batch(self, batch: Any) -> list[Any]:
        """Return two halves of a batch, along the first dimension of its tensors."""
        size = next(iter(batch.values())).shape[0] // 2
        return [{k: v[:size] for k, v in batch.items()}, {k: v[size:] for k, v in batch.items()}]

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Call the model on a batch."""
        return model(**batch) if isinstance(batch, dict) else model(batch)

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the tensor by which two models are compared, such as the logits."""
        result = self.forward(model, batch)
        tensor: Tensor = getattr(result, "logits", result)
        return tensor

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the scalar training loss of a batch."""
        value: Tensor = self.forward(model, batch).loss
        return value

    # ---- steps that several clauses take

    def make_plan(self, model: nn.Module) -> Plan:
        """Plan the transform on a model."""
        plan: Plan = self.make_plugin().plan(model, self.targets)
        return plan

    def prepare(self, live: LiveTransform) -> None:
        """Do what a model needs after ``apply`` before it gives meaningful outputs."""

    def apply_to(self, model: nn.Module) -> LiveTransform:
        """Apply the transform to a model and prepare it."""
        live = planish.apply(model, self.make_plugin(), targets=self.targets)
        self.prepare(live)
        return live

    def transformed(self) -> tuple[nn.Module, LiveTransform]:
        """Return a new transformed model."""
        model = self.make_model()
        return model, self.apply_to(model)

    def trained(self, steps: int | None = None) -> tuple[nn.Module, LiveTransform]:
        """Return a transformed model after some training, where the method trains."""
        model, live = self.transformed()
        if self.trains:
            steps = self.steps if steps is None else steps
            torch.manual_seed(30)
            live.on_train_start(steps)
            train(model, live, make_optimizer(model, self.learning_rate), self.make_batches(steps), self.loss)
        return model, live

    def evaluate(self, model: nn.Module) -> Tensor:
        """Return the output on a fixed batch, in evaluation mode, under a fixed seed; leave the mode as it was."""
        modes = {module: module.training for module in model.modules()}
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(40)
            output = self.output(model, self.make_batches(1)[0]).detach().clone()
        for module, mode in modes.items():
            module.training = mode
        return output
