"""Checkpoints that a killed run continues from, bit-exactly on a CPU."""

from __future__ import annotations

import io
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from planish.atomic import write_bytes
from planish.errors import CheckpointError, WorkError

from planish_lightning.runner.interruption import Interruption

_RANDOM = "planish_random_state"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints as a whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            WorkError: The folder cannot be written, or the disk is full.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(Path(path), buffer.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Return the checkpoint at ``path``; nothing but tensors and plain values is read.

        Raises:
            CheckpointError: The file is damaged.
        """
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{path} is damaged ({type(error).__name__}: {reason}); delete it to train this variant from its start"
            ) from error


class RandomState(L.Callback):
    """Keeps the state of all random generators, of each rank, in checkpoints.

    It is put back right before the first batch after a resume, when nothing draws from it any more on the way there.
    """

    def __init__(self) -> None:
        """Create the callback."""
        self._pending: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Collect the generators' states of all ranks."""
        states: list[Any] = [_random_state()]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, _random_state())
        checkpoint[_RANDOM] = states

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the state of this rank."""
        states = checkpoint.get(_RANDOM, [])
        self._pending = states[trainer.global_rank] if trainer.global_rank < len(states) else None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put it back, once."""
        if self._pending is not None:
            _restore_random_state(self._pending)
            self._pending = None


class ResumeCheckpoint(L.Callback):
    """Saves the run after an optimizer step, every so many steps or seconds, and when it is to stop.

    Never right before a validation: Lightning would skip that validation after a resume. It saves one step later then.
    """

    def __init__(
        self,
        path: Path,
        interruption: Interruption,
        *,
        every_steps: int | None,
        every_seconds: float | None,
        before: Callable[[L.Trainer], None] = lambda trainer: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Create the callback.

        Args:
            path: Where to.
            interruption: Asked after each step whether to stop.
            every_steps: Optimizer steps between saves.
            every_seconds: Seconds between saves.
            before: Called with the Trainer before each save: what is to be on disk first.
            after: Called after each save.
        """
        self.path, self.interruption, self.before, self.after = path, interruption, before, after
        self.every_steps, self.every_seconds = every_steps, every_seconds
        self._last_step, self._last_time, self._is_due = 0, time.monotonic(), False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting."""
        self.interruption.reinstall()
        self.interruption.is_training = True
        self._last_step, self._last_time, self._is_due = trainer.global_step, time.monotonic(), False
        self._seen = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Signals are no longer deferred."""
        self.interruption.is_training = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Signals are no longer deferred."""
        self.interruption.is_training = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; stop if that was asked for.

        Raises:
            WorkError: The run was interrupted, or the checkpoint cannot be written.
        """
        step = trainer.global_step
        if step == self._seen:
            return  # within an accumulation
        self._seen = step
        stop = self._agreed(trainer, self.interruption.requested)
        self._is_due = self._is_due or stop or self._time_has_come(trainer, step)
        if not self._is_due or step >= trainer.max_steps:
            return
        if (trainer.fit_loop.epoch_loop.total_batch_idx + 1) % int(trainer.val_check_batch or 1) == 0:
            return
        self.before(trainer)
        trainer.save_checkpoint(self.path)
        self.after()
        self._last_step, self._last_time, self._is_due = step, time.monotonic(), False
        if stop:
            raise Interrupted(step, trainer.max_steps)

    def _time_has_come(self, trainer: L.Trainer, step: int) -> bool:
        if self.every_steps is not None and step - self._last_step >= self.every_steps:
            return True
        if self.every_seconds is None:
            return False
        return self._agreed(trainer, time.monotonic() - self._last_time >= self.every_seconds)

    @staticmethod
    def _agreed(trainer: L.Trainer, wish: bool) -> bool:
        """Return whether any rank wishes it: all of them save, or none."""
        return trainer.strategy.reduce_boolean_decision(wish, all=False) if trainer.world_size > 1 else wish


class Interrupted(WorkError):
    """Training was stopped from outside, after its state was saved."""

    def __init__(self, step: int, total: int) -> None:
        """Say at which step."""
        super().__init__(f"interrupted after step {step} of {total}")
        self.step, self.total = step, total


def _random_state() -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": (str(kind), [int(key) for key in keys], int(position), int(has_gauss), float(gauss)),
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
