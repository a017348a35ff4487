"""QuantizerContract: the contract of :class:`planish.interfaces.Quantizer`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import nn

import planish
from planish.api import LiveTransform
from planish.errors import PlanishError, UnsupportedError
from planish.interfaces.quantizer import Quantizer
from planish.testing.clause import not_claimed, refusal, require
from planish.testing.comparison import difference, relative_error
from planish.testing.snapshot import Snapshot
from planish.testing.transform_contract import TransformContract


class QuantizerContract(TransformContract):
    """The whole battery for a quantizer::

    class TestDemo(QuantizerContract):
        plugin = Demo
        options = {"bits": 8}

    For a post-training method (``needs_calibration``) every other clause sees a calibrated model; set
    ``trains = False`` if it is not meant to be trained on.
    """

    kind: ClassVar[str] = "quantizer"

    calibration_batches: ClassVar[int] = 4
    """Batches handed to ``calibrate``."""

    error_bound: ClassVar[float | None] = 0.5
    """Largest relative RMS error of the quantized model's output against the original's, untrained; None to leave it
    unchecked."""

    def prepare(self, live: LiveTransform) -> None:
        """Calibrate, where the method needs it."""
        if self.plugin.needs_calibration:
            transform: Any = live.transform
            transform.calibrate(live.model, self.make_batches(self.calibration_batches))

    # ---- clauses

    def test_quantized_output_stays_close(self) -> None:
        """The quantized model's output is within ``error_bound`` of the original's."""
        if self.error_bound is None:
            not_claimed("error_bound is None")
        gap = relative_error(self.evaluate(self.transformed()[0]), self.evaluate(self.make_model()))
        require(
            gap <= self.error_bound,
            f"quantization changed the output by {gap:.3g} (relative RMS), more than error_bound = {self.error_bound}",
        )

    def test_training_method_refuses_calibration(self) -> None:
        """A method with nothing to calibrate raises UnsupportedError in ``calibrate`` rather than doing nothing."""
        if self.plugin.needs_calibration:
            not_claimed("needs_calibration is True")
        model, live = self.transformed()
        transform: Any = live.transform
        with refusal(UnsupportedError, when="calibrate() is called and needs_calibration is False"):
            transform.calibrate(model, self.make_batches(1))

    def test_calibration_reads_a_stream_once(self) -> None:
        """``calibrate`` works on a generator: it reads each batch once and never asks for the length."""
        model, plugin = self._uncalibrated()
        read: list[int] = []
        batches = self.make_batches(self.calibration_batches)

        def stream() -> Iterator[Any]:
            for position, batch in enumerate(batches):
                read.append(position)
                yield batch

        try:
            plugin.calibrate(model, stream())
        except Exception as error:
            require(
                False, f"calibrate() on a generator raised {type(error).__name__}: {error}; keep what it needs twice"
            )
        require(read, "calibrate() read no batch")
        require(torch.isfinite(self.evaluate(model)).all(), "after calibration the output is not finite")

    def test_calibration_reports_progress(self) -> None:
        """``progress(done, total, what)`` is called, ``done`` never falls, and stays within a known ``total``."""
        model, plugin = self._uncalibrated()
        calls: list[tuple[int, int, str]] = []
        batches = self.make_batches(self.calibration_batches)
        plugin.calibrate(model, batches, lambda *call: calls.append(call))
        done = [call[0] for call in calls]
        require(calls, "calibrate() never called progress(done, total, what)")
        require(done == sorted(done), f"calibrate() reported progress that falls: {done}")
        require(
            all(total == 0 or at <= total for at, total, _ in calls),
            f"calibrate() reported more done than there is: {calls}",
        )

    def test_calibration_is_repeatable(self) -> None:
        """Calibrating equal models on equal batches under equal seeds gives equal state."""
        states = []
        for _ in range(2):
            model, plugin = self._uncalibrated()
            torch.manual_seed(50)
            plugin.calibrate(model, self.make_batches(self.calibration_batches))
            states.append(model.state_dict())
        gap = difference(states[1], states[0])
        require(not gap, f"two calibrations on the same batches and seed differ: {gap}")

    def test_calibration_leaves_no_trace(self) -> None:
        """``calibrate`` leaves training mode and hooks as they were, and no gradients behind."""
        model, plugin = self._uncalibrated()
        model.train()
        before = Snapshot.of(model)
        plugin.calibrate(model, self.make_batches(self.calibration_batches))
        after = Snapshot.of(model)
        common = {name: mode for name, mode in after.modes.items() if name in before.modes}
        changed = next((name or "(model)" for name, mode in common.items() if before.modes[name] != mode), "")
        require(not changed, f"calibrate() changed the training mode of {changed!r}; restore each module's own")
        hooked = [name for name, hooks in after.hooks.items() if hooks and not before.hooks.get(name)]
        require(not hooked, f"calibrate() left hooks at {hooked[:3]}; remove what it registers")
        graded = [name for name, (_, _, _, grad) in after.tensors.items() if grad is not None]
        require(not graded, f"calibrate() left gradients on {graded[:3]}; clear them")

    def test_calibration_without_batches_is_an_error(self) -> None:
        """No batch at all is a PlanishError, not an uncalibrated model."""
        model, plugin = self._uncalibrated()
        with refusal(PlanishError, when="calibrate() is given no batch"):
            plugin.calibrate(model, [])

    def _uncalibrated(self) -> tuple[nn.Module, Quantizer]:
        if not self.plugin.needs_calibration:
            not_claimed("needs_calibration is False")
        model = self.make_model()
        plugin: Quantizer = self.make_plugin()
        planish.apply(model, plugin, targets=self.targets)
        return model, plugin
