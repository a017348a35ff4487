"""Recording a training run into the report: losses, metrics, times, memory."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from planish.report import ReportBuilder
from torch import Tensor

from planish_lightning.callbacks import TransformCallback

_SETTLING_STEPS = 2
"""First steps that are left out of speeds: allocation and compilation."""


class Recorder(L.Callback):
    """Writes into the report after each optimizer step: loss, step time, the transforms' metrics; and validations.

    Step times are wall-clock times between the ends of steps, without validation and checkpoints. On a GPU the device
    is waited for every tenth step only, and these ten share their mean.
    """

    def __init__(
        self,
        report: ReportBuilder,
        variant: str,
        transforms: TransformCallback | None,
        *,
        tokens_per_step: int,
        on_step: Callable[[int, float | None], None] = lambda step, loss: None,
        on_validation: Callable[[int, float], None] = lambda step, loss: None,
    ) -> None:
        """Create the callback.

        Args:
            report: Turned to the variant that is trained.
            variant: Its name.
            transforms: Whose metrics are recorded.
            tokens_per_step: Of an optimizer step, over all devices.
            on_step: Told each step and the last known loss.
            on_validation: Told each validation.
        """
        self.report, self.variant, self.transforms = report, variant, transforms
        self.tokens_per_step = tokens_per_step
        self.on_step, self.on_validation = on_step, on_validation
        self._losses: list[Tensor] = []
        self._pending: list[tuple[int, Tensor]] = []
        self._started = 0.0
        self._seen = 0
        self._last: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what was reported after the step that is resumed; start the clock."""
        self._seen = trainer.global_step
        self.report.rewind(self._seen)
        _reset_peak(pl_module.device)
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record a step if one ended."""
        self._losses.append(outputs["loss"].detach())  # Lightning has divided it by the number of batches
        step = trainer.global_step
        if step == self._seen:
            return
        self._seen = step
        self._pending.append((step, torch.stack(self._losses).sum()))
        self._losses = []
        if self.transforms is not None and self.transforms.metrics:
            uses = {name.partition("/")[0] for name in self.transforms.metrics}
            alone = len(uses) == 1
            self.report.log(
                step, {(n.partition("/")[2] if alone else n): float(v) for n, v in self.transforms.metrics.items()}
            )
        every = 10 if pl_module.device.type == "cuda" else 1
        if len(self._pending) >= every or step >= trainer.max_steps:
            self._flush(trainer)
        self.on_step(step, self._last)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        if trainer.state.fn == "fit":
            self._flush(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the loss; go on with the clock."""
        if trainer.state.fn == "fit":
            loss = float(trainer.callback_metrics["val/loss"])
            self.report.log(trainer.global_step, val_loss=loss)
            self.on_validation(trainer.global_step, loss)
            self._started = time.perf_counter()

    def pause(self, trainer: L.Trainer) -> None:
        """Record what is pending, before something that is no training; :meth:`go_on` follows."""
        self._flush(trainer)

    def go_on(self) -> None:
        """Go on with the clock."""
        self._started = time.perf_counter()

    def summarize(self, device: torch.device) -> None:
        """Set the report's figures of the whole training."""
        series = self.report.report.variants[self.variant].series
        times = series["step_ms"].values if "step_ms" in series else []
        settled = times[_SETTLING_STEPS:] or times
        figures: dict[str, Any] = {"peak_memory_bytes": _peak(device)}
        if "loss" in series:
            figures |= {"steps": series["loss"].steps[-1], "train_loss": series["loss"].values[-1]}
        if settled:
            figures |= {
                "tokens_per_s": self.tokens_per_step * 1000 / statistics.fmean(settled),
                "step_ms_p20": _quantile(settled, 0.2),
                "step_ms_p50": _quantile(settled, 0.5),
                "step_ms_p80": _quantile(settled, 0.8),
                "train_s": sum(times) / 1000,
            }
        self.report.summary(**figures)

    def _flush(self, trainer: L.Trainer) -> None:
        if not self._pending:
            return
        losses = torch.stack([loss for _, loss in self._pending])
        if trainer.world_size > 1:
            losses = torch.as_tensor(trainer.strategy.reduce(losses, reduce_op="mean"))
        values = losses.tolist()  # waits for the device
        now = time.perf_counter()
        step_ms = 1000 * (now - self._started) / len(values)
        for (step, _), value in zip(self._pending, values):
            self.report.log(step, loss=value, step_ms=step_ms)
        self._last = values[-1]
        self._pending = []
        self._started = now


def _quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # Linux only; elsewhere the peak is that of the whole process so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # Unix only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
