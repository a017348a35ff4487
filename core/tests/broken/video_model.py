"""Broken video models, one for each clause of the contract."""

from __future__ import annotations

from dataclasses import replace

import torch
from planish.interfaces import Condition, Video
from samples.pixel_flow import PixelFlow
from samples.suites import PixelFlowSuite as Suite
from torch import nn

from broken.case import Broken


class MutableConditions(PixelFlow):
    accepts = {Condition.CAMERA_PATH}  # noqa: RUF012 - the mistake


class MakesUpAPrompt(PixelFlow):
    def validate(self, request):
        super().validate(request if request.prompt is not None else replace(request, prompt=""))


class IgnoresConditions(PixelFlow):
    def validate(self, request):
        others = {c.value: None for c in set(Condition) - self.requires - self.accepts}
        super().validate(replace(request, **others))


class IgnoresTheCamera(PixelFlow):
    def generate(self, request, progress=None):
        return super().generate(replace(request, camera_path=None), progress)


class RepairsSizes(PixelFlow):
    def generate(self, request, progress=None):
        sizes = {name: max(1, getattr(request, name)) for name in ("num_frames", "height", "width", "steps")}
        return super().generate(replace(request, **sizes), progress)


class SwapsHeightAndWidth(PixelFlow):
    def generate(self, request, progress=None):
        video = super().generate(request, progress)
        return Video(video.frames.transpose(1, 2).contiguous(), video.fps)


class SeedsFromTheProcess(PixelFlow):
    def generate(self, request, progress=None):
        return super().generate(replace(request, seed=request.seed + torch.initial_seed()), progress)


class SeedsTheProcess(PixelFlow):
    def generate(self, request, progress=None):
        torch.manual_seed(request.seed)
        return super().generate(request, progress)


class ConsumesTheCameraPath(PixelFlow):
    def generate(self, request, progress=None):
        video = super().generate(request, progress)
        if request.camera_path is not None:
            request.camera_path.zero_()
        return video


class StopsBeforeTheEnd(PixelFlow):
    def generate(self, request, progress=None):
        def early(done, total, what):
            if progress is not None and done < total:
                progress(done, total, what)

        return super().generate(request, early)


class WrapsAnew(PixelFlow):
    def modules(self):
        return {**super().modules(), "all": nn.ModuleList(super().modules().values())}


class HidesANetwork(PixelFlow):
    def modules(self):
        return {name: module for name, module in super().modules().items() if name != "out"}


class LossPerBatch(PixelFlow):
    def loss(self, batch):
        return super().loss(batch)[None]


class AscendsTheLoss(PixelFlow):
    def __init__(self, config=None, **options):
        super().__init__(config, **options)
        for module in self.modules().values():
            for parameter in module.parameters():
                parameter.register_hook(torch.neg)


BROKEN = [
    Broken(Suite, "test_conditions_are_declared", "expected a frozenset", MutableConditions),
    Broken(Suite, "test_missing_condition_is_refused", "the request lacks prompt", MakesUpAPrompt),
    Broken(Suite, "test_unusable_condition_is_refused", "which is not used", IgnoresConditions),
    Broken(Suite, "test_accepted_conditions_are_used", "camera_path", IgnoresTheCamera),
    Broken(Suite, "test_wrong_size_is_refused", "num_frames = 0", RepairsSizes),
    Broken(Suite, "test_video_is_as_requested", "requested was [4, 32, 48, 3]", SwapsHeightAndWidth),
    Broken(Suite, "test_seed_decides", "seeded with request.seed", SeedsFromTheProcess),
    Broken(Suite, "test_global_random_state_is_left_alone", "of its own", SeedsTheProcess),
    Broken(Suite, "test_request_is_left_alone", "camera_path", ConsumesTheCameraPath),
    Broken(Suite, "test_progress_is_reported", "report the end", StopsBeforeTheEnd),
    Broken(Suite, "test_modules_are_the_networks", "on the second call", WrapsAnew),
    Broken(Suite, "test_modules_carry_the_model", "hold all weights in modules()", HidesANetwork),
    Broken(Suite, "test_loss_is_finite_and_differentiable", "finite scalar", LossPerBatch),
    Broken(
        Suite,
        "test_loss_is_finite_and_differentiable",
        "training-free method",
        PixelFlow,
        {"trains": False},
    ),
    Broken(Suite, "test_training_lowers_the_loss", "took the loss from", AscendsTheLoss),
]
