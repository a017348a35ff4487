"""Broken quantizers, one for each clause that is a quantizer's own."""

from __future__ import annotations

import itertools

import torch
from samples.absmax import AbsMax
from samples.activation_range import ActivationRange
from samples.suites import AbsMaxSuite, ActivationRangeSuite

from broken.case import Broken
from broken.transform import Suite as SmallSuite


class TrainingSuite(AbsMaxSuite):
    """The suite of the training quantizer at the smallest size."""

    steps = 4
    make_model = SmallSuite.make_model
    make_batches = SmallSuite.make_batches


class CalibratedSuite(ActivationRangeSuite):
    """The suite of the calibrated quantizer at the smallest size."""

    make_model = SmallSuite.make_model
    make_batches = SmallSuite.make_batches


class CoarseGrid(ActivationRange):
    def calibrate(self, model, batches, progress=None):
        super().calibrate(model, batches, progress)
        for _, module in self._static(model):
            module.input_step.mul_(1000)


class PretendsToCalibrate(AbsMax):
    survives = frozenset({"deepcopy", "pickle"})

    def calibrate(self, model, batches, progress=None):
        """Do nothing, where the interface demands a refusal."""


class CountsBatches(ActivationRange):
    def calibrate(self, model, batches, progress=None):
        if len(batches) > 1000:
            batches = batches[:1000]
        super().calibrate(model, batches, progress)


class SilentCalibration(ActivationRange):
    def calibrate(self, model, batches, progress=None):
        super().calibrate(model, batches)


class RestlessCalibration(ActivationRange):
    counter = itertools.count(1)

    def calibrate(self, model, batches, progress=None):
        super().calibrate(model, batches, progress)
        factor = 1 + 1e-4 * next(self.counter)
        for _, module in self._static(model):
            module.input_step.mul_(factor)


class LeavesEvaluationMode(ActivationRange):
    def calibrate(self, model, batches, progress=None):
        super().calibrate(model, batches, progress)
        model.eval()


class AcceptsNoBatch(ActivationRange):
    def calibrate(self, model, batches, progress=None):
        batches = list(batches)
        if not batches:
            with torch.no_grad():
                for _, module in self._static(model):
                    module.input_step.fill_(1.0)
            return
        super().calibrate(model, batches, progress)


BROKEN = [
    Broken(CalibratedSuite, "test_quantized_output_stays_close", "error_bound", CoarseGrid),
    Broken(TrainingSuite, "test_training_method_refuses_calibration", "nothing was raised", PretendsToCalibrate),
    Broken(CalibratedSuite, "test_calibration_reads_a_stream_once", "on a generator raised", CountsBatches),
    Broken(CalibratedSuite, "test_calibration_reports_progress", "never called progress", SilentCalibration),
    Broken(CalibratedSuite, "test_calibration_is_repeatable", "on the same batches and seed", RestlessCalibration),
    Broken(CalibratedSuite, "test_calibration_leaves_no_trace", "training mode", LeavesEvaluationMode),
    Broken(CalibratedSuite, "test_calibration_without_batches_is_an_error", "nothing was raised", AcceptsNoBatch),
]
