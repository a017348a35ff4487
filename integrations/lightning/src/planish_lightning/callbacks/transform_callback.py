"""Driving transforms through a Lightning run: surgery, gradients, schedules, metrics, checkpoints."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from planish.api import LiveTransform, applied
from planish.errors import CheckpointError, ConfigError, UnsupportedError, WorkError
from planish.interfaces import ModelTransform, Sparsifier
from torch import nn

from planish_lightning.callbacks import checkpoint_record
from planish_lightning.callbacks.method_tap import tap


class TransformCallback(L.Callback):
    """Base of the callbacks that change the model.

    * Surgery happens in ``setup``: the model is built, the optimizer is not, and DDP or FSDP have not wrapped it yet.
    * ``on_gradients`` runs between gradient clipping and ``optimizer.step()``. Lightning has no callback hook there,
      so :meth:`LightningModule.configure_gradient_clipping` is wrapped for the duration of the run; it is called
      whether or not clipping is on, after AMP has unscaled, once per optimizer step under accumulation. Under manual
      optimization the optimizer's own step hooks are used instead; there must be one optimizer.
    * ``on_step`` runs after each optimizer step, at the end of the batch; its metrics are logged as ``name/metric``.
    * State lies in the model's buffers, so that checkpoints carry it. What has been applied is recorded in the
      checkpoint, and one from another recipe is refused before anything is loaded.
    * On several ranks the masks of sparsifiers are compared by hash after the first step and every
      ``compare_masks_every`` steps.

    Attributes:
        live: The transforms at work, in order; empty before ``setup``.
        metrics: The metrics of the last step, by their logged names.
        steps: Optimizer steps done.
    """

    def __init__(self, *, module: str | None = None, compare_masks_every: int = 1000) -> None:
        """Create the callback.

        Args:
            module: Attribute of the LightningModule that holds the model, such as ``"model"``. None: its only child
                with parameters, or the LightningModule itself where there are several.
            compare_masks_every: Optimizer steps between comparisons of masks over ranks.
        """
        if compare_masks_every < 1:
            raise ConfigError(f"compare_masks_every is {compare_masks_every}; expected at least 1")
        self.module = module
        self.compare_masks_every = compare_masks_every
        self.live: list[LiveTransform] = []
        self.metrics: dict[str, float] = {}
        self.steps = 0
        self._undo: list[Callable[[], None]] = []

    @abstractmethod
    def transforms(self) -> Iterable[ModelTransform]:
        """Return the transforms that :meth:`change` would apply, for checks before anything is changed."""

    @abstractmethod
    def change(self, model: nn.Module) -> list[LiveTransform]:
        """Apply the transforms to the model."""

    def model(self, pl_module: L.LightningModule) -> nn.Module:
        """Return the model within a LightningModule.

        Raises:
            ConfigError: There is no such attribute, or it is no module.
        """
        if self.module is not None:
            found = getattr(pl_module, self.module, None)
            if not isinstance(found, nn.Module):
                raise ConfigError(
                    f"module: {type(pl_module).__name__} has no submodule {self.module!r}; it has "
                    f"{', '.join(repr(n) for n, _ in pl_module.named_children()) or 'none'}"
                )
            return found
        with_parameters = [child for child in pl_module.children() if any(True for _ in child.parameters())]
        own = any(True for _ in pl_module.parameters(recurse=False))
        return with_parameters[0] if len(with_parameters) == 1 and not own else pl_module

    # ------------------------------------------------------------------ surgery

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Change the model, unless an earlier run with this callback has done so."""
        model = self.model(pl_module)
        present = [id(live) for live in applied(model)]
        if not self.live or any(id(live) not in present for live in self.live):
            if not any(True for _ in model.parameters()):
                raise UnsupportedError(
                    f"{type(pl_module).__name__} has no parameters when callbacks are set up; build the model in "
                    "__init__ rather than in setup() or configure_model(), so that it can be changed before it is "
                    "wrapped and before the optimizer is built"
                )
            for transform in self.transforms():
                check_open_options(transform)
                check_strategy(trainer, transform)
            self.live = self.change(model)
            self.steps = 0
        self._watch(trainer, pl_module, model)

    def _watch(self, trainer: L.Trainer, pl_module: L.LightningModule, model: nn.Module) -> None:
        self._release()

        def before_load(checkpoint: Mapping[str, Any]) -> None:
            checkpoint_record.check(checkpoint, model)

        def after_clipping(*_: Any, **__: Any) -> None:
            self._gradients()

        self._undo.append(tap(pl_module, "on_load_checkpoint", before=before_load))
        if pl_module.automatic_optimization:
            self._undo.append(tap(pl_module, "configure_gradient_clipping", after=after_clipping))

    def _release(self) -> None:
        while self._undo:
            self._undo.pop()()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop listening; the model stays changed."""
        self._release()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Stop listening: Lightning calls no teardown after an error."""
        self._release()

    # ------------------------------------------------------------------ steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell the transforms how long the run is; after a resume, catch up with a step that was saved half-way."""
        total = trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ConfigError("the Trainer has no end, and schedules need one; give it max_steps or max_epochs")
        for live in self.live:
            live.on_train_start(int(total))
        if not pl_module.automatic_optimization:
            self._watch_optimizer(trainer, pl_module)
        while self.steps < trainer.global_step:
            self._step()

    def _watch_optimizer(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise UnsupportedError(
                f"{type(pl_module).__name__} optimizes manually with {len(trainer.optimizers)} optimizers; planish "
                "callbacks support one, or automatic optimization"
            )
        optimizer = trainer.optimizers[0]

        def before(*_: Any) -> None:
            self._gradients()

        def after(*_: Any) -> None:
            self._step()
            self._log(pl_module)

        self._undo.append(optimizer.register_step_pre_hook(before).remove)
        self._undo.append(optimizer.register_step_post_hook(after).remove)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Drive schedules if the batch ended with an optimizer step; log; compare masks."""
        before = self.steps
        if pl_module.automatic_optimization:
            while self.steps < trainer.global_step:
                self._step()
            if self.steps > before:
                self._log(pl_module)
        if trainer.world_size > 1 and self.steps and (self.steps == 1 or self.steps % self.compare_masks_every == 0):
            self._compare_masks(trainer)

    def _gradients(self) -> None:
        for live in self.live:
            live.on_gradients(self.steps)

    def _step(self) -> None:
        self.steps += 1
        self.metrics = {}
        uses = [live.plan.use for live in self.live]
        for position, live in enumerate(self.live):
            use = live.plan.use
            label = use if uses.count(use) == 1 else f"{use}.{uses[: position + 1].count(use)}"
            for name, value in live.on_step(self.steps).items():
                self.metrics[f"{label}/{name}"] = value

    def _log(self, pl_module: L.LightningModule) -> None:
        if self.metrics:
            pl_module.log_dict(dict(self.metrics), on_step=True, on_epoch=False)

    def _compare_masks(self, trainer: L.Trainer) -> None:
        digest = torch.tensor(_mask_digest(self.live), device=trainer.strategy.root_device)
        all_ranks = trainer.strategy.all_gather(digest).flatten().tolist()
        if len(set(all_ranks)) > 1:
            odd = [rank for rank, value in enumerate(all_ranks) if value != all_ranks[0]]
            raise WorkError(
                f"after step {self.steps} the masks of rank {odd[0]} differ from those of rank 0: the ranks' weights "
                "have drifted apart; look for a module that is left out of gradient averaging"
            )

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record what has been applied."""
        checkpoint[checkpoint_record.KEY] = checkpoint_record.record(self.model(pl_module))

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps done; everything else lies in the model."""
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a saved step."""
        try:
            self.steps = int(state_dict["steps"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"the checkpoint's state for {self.state_key} is damaged: {state_dict!r}") from None


def check_open_options(transform: ModelTransform) -> None:
    """Refuse a transform that needs trial runs.

    Raises:
        ConfigError: An option is to be found by trial runs, which a callback cannot start.
    """
    if transform.needs_search:
        raise ConfigError(
            f"{transform.name}: an option is left to be found by trial runs, which 'planish run' does before training; "
            f"within a Trainer, give it a value (the report of 'planish run' names the one it found)"
        )


def check_strategy(trainer: L.Trainer, transform: ModelTransform) -> None:
    """Refuse a strategy that a transform does not claim to survive.

    Raises:
        UnsupportedError: The strategy shards or replicates the model in a way that the transform does not claim.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DeepSpeedStrategy):
        raise UnsupportedError(
            f"{transform.name} cannot run under DeepSpeed, which clips and steps inside its own engine; use DDP"
        )
    wanted = None
    if isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
        wanted = "fsdp"
    elif isinstance(strategy, DDPStrategy):
        wanted = "ddp"
    if wanted is not None and wanted not in transform.survives:
        others = sorted(transform.survives & {"ddp", "fsdp"})
        raise UnsupportedError(
            f"{transform.name} does not support {type(strategy).__name__}: it claims "
            f"{' and '.join(others) or 'a single device only'}; choose strategy={others[0]!r}"
            if others
            else f"{transform.name} does not support {type(strategy).__name__}; train on a single device"
        )


def _mask_digest(live: Iterable[LiveTransform]) -> int:
    digest = hashlib.sha256()
    for each in live:
        if isinstance(each.transform, Sparsifier):
            for name, mask in sorted(each.transform.masks(each.model).items()):
                digest.update(name.encode())
                digest.update(mask.detach().to("cpu", torch.uint8).contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "little") >> 1
