"""Sample plugins, small and real, that the tests of planish-lightning register in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from planish import hookimpl
from planish.config import Config
from planish.interfaces import (
    AttentionImpl,
    AttentionSpec,
    Claim,
    Clip,
    Condition,
    DataFilter,
    Decision,
    Plan,
    PlannedModule,
    Quantizer,
    Row,
    Sparsifier,
    Support,
    Video,
    VideoModel,
    VideoRequest,
)
from planish.plugins.manager import PluginManager
from planish.plugins.registry import Registry
from planish.targets import match, replace
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedLinear(nn.Linear):
    """Computes with weight * mask; counts what the callback does to it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("mask", largest_half(linear.weight))
        self.register_buffer("gradients_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_step", torch.zeros((), dtype=torch.int64))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.mask, self.bias)


def largest_half(weight: Tensor) -> Tensor:
    """Keep the two largest magnitudes of each four along a row."""
    groups = weight.detach().abs().reshape(-1, 4)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter_(1, groups.topk(2, dim=1).indices, True).reshape(weight.shape)


class Half(Sparsifier):
    name = "half"
    summary = "keeps the larger half of each four weights"
    survives = frozenset({"deepcopy", "pickle", "ddp"})

    class Config(Config):
        interval: int = Field(2, ge=1, description="steps between mask searches")
        decay: float = Field(0.0, ge=0, description="decay of weights that are not kept")
        dense_last: int = Field(0, ge=0, description="steps at the end that train dense")
        search: bool = Field(False, description="whether the decay is to be searched")

    def plan(self, model: nn.Module, targets: Sequence[str] | None = None) -> Plan:
        chosen = match(model, targets or ["*"])
        entries = [
            PlannedModule(name, m.in_features % 4 == 0, "a linear", (Claim("weight.mask"),), {"forward": "masked"})
            for name, m in chosen.items()
            if isinstance(m, nn.Linear) and "head" not in name
        ]
        return Plan(self.name, self.config.model_dump(mode="json"), tuple(entries))

    def apply(self, model: nn.Module, plan: Plan) -> None:
        for entry in plan.touched:
            replace(model, entry.name, MaskedLinear(model.get_submodule(entry.name)))

    def on_train_start(self, model: nn.Module, total_steps: int) -> None:
        self.total = total_steps

    def on_gradients(self, model: nn.Module, step: int) -> None:
        for layer in layers(model):
            layer.gradients_seen += 1
            layer.weight.grad += self.config.decay * ~layer.mask * layer.weight.detach()

    def on_step(self, model: nn.Module, step: int) -> Mapping[str, float]:
        flips = 0
        for layer in layers(model):
            layer.last_step.fill_(step)
            if self.config.dense_last and step >= self.total - self.config.dense_last:
                layer.mask.fill_(True)
            elif step % self.config.interval == 0:
                new = largest_half(layer.weight)
                flips += int((new != layer.mask).sum())
                layer.mask.copy_(new)
        return {"flips": float(flips)}

    def masks(self, model: nn.Module) -> Mapping[str, Tensor]:
        found = {f"{n}.weight": m.mask for n, m in model.named_modules() if isinstance(m, MaskedLinear)}
        return {name: mask for name, mask in found.items() if not mask.all()}

    @property
    def needs_search(self) -> bool:
        return self.config.search

    def search(self, trial: Any, progress: Any = None) -> Half:
        losses = {}
        for decay in (0.0, 0.125):
            metrics = trial(Half(decay=decay), 4)
            assert len(metrics) == 4
            losses[decay] = sum(row["flips"] for row in metrics)
        return Half(self.config.model_copy(update={"search": False, "decay": min(losses, key=losses.get)}))

    def finish(self, model: nn.Module) -> None:
        for name, layer in list(model.named_modules()):
            if isinstance(layer, MaskedLinear):
                plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
                layer.weight.data.mul_(layer.mask)
                plain.weight, plain.bias = layer.weight, layer.bias
                replace(model, name, plain)


class SingleDevice(Half):
    name = "single-device"
    survives = frozenset({"deepcopy", "pickle"})


def layers(model: nn.Module) -> Iterable[MaskedLinear]:
    return [m for m in model.modules() if isinstance(m, MaskedLinear)]


class RangedLinear(nn.Linear):
    """Clamps and rounds its input to a calibrated range."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("range", torch.zeros(()))
        self.is_measuring = True

    def forward(self, input: Tensor) -> Tensor:
        if self.is_measuring:
            self.range.copy_(torch.maximum(self.range, input.detach().abs().amax()))
            return super().forward(input)
        scale = self.range / 127
        return super().forward((input / scale).round().clamp(-127, 127) * scale)


class Ranged(Quantizer):
    name = "ranged"
    summary = "8-bit activations with a calibrated range"
    needs_calibration = True

    class Config(Config):
        pass

    def plan(self, model: nn.Module, targets: Sequence[str] | None = None) -> Plan:
        chosen = match(model, targets or ["*"])
        entries = [PlannedModule(n, True, "a linear") for n, m in chosen.items() if type(m) is nn.Linear]
        return Plan(self.name, {}, tuple(entries))

    def apply(self, model: nn.Module, plan: Plan) -> None:
        for entry in plan.touched:
            replace(model, entry.name, RangedLinear(model.get_submodule(entry.name)))

    def calibrate(self, model: nn.Module, batches: Iterable[Any], progress: Any = None) -> None:
        with torch.no_grad():
            for batch in batches:
                model(**batch) if isinstance(batch, Mapping) else model(batch)

    def finish(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, RangedLinear):
                module.is_measuring = False


class Rounded(Half, Quantizer):
    """A quantizer that trains: the callback drives it like any transform."""

    name = "rounded"


class PlainAttention(AttentionImpl):
    name = "plain"
    summary = "softmax attention, written out"
    calls = 0

    def supports(self, spec: AttentionSpec) -> Support:
        return Support(True)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, spec: AttentionSpec, bias: Tensor | None = None) -> Tensor:
        type(self).calls += 1
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
        scores = q @ k.mT * (spec.scale or q.shape[-1] ** -0.5)
        if bias is not None:
            scores = scores + bias
        if spec.causal:
            hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2])
            scores = scores.masked_fill(hidden, float("-inf"))
        return scores.softmax(-1) @ v


class Tint(VideoModel):
    name = "tint"
    summary = "a frame is one learnt colour"
    requires = frozenset({Condition.PROMPT})

    class Config(Config):
        is_frozen: bool = Field(False, description="whether it cannot be trained")

    def __init__(self, config: Any = None, **options: Any) -> None:
        super().__init__(config, **options)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.net.requires_grad_(not self.config.is_frozen)

    def generate(self, request: VideoRequest, progress: Any = None) -> Video:
        self.validate(request)
        assert not torch.is_grad_enabled()
        assert not self.net.training
        colour = self.net(torch.ones(4)).sigmoid() * 255
        shape = (request.num_frames, request.height, request.width, 3)
        return Video(colour.to(torch.uint8).expand(shape).clone(), request.fps)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"painter.net": self.net}

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        return F.mse_loss(self.net(batch["x"]), batch["y"])


class BySize(DataFilter):
    name = "by-size"
    summary = "keeps clips of large files"
    scored = 0

    class Config(Config):
        unit: int = Field(1, ge=1, description="bytes that count as one")

    class Policy(Config):
        smallest: float = Field(10, ge=0, description="units that a kept clip's file has at least")

    class Columns(Row):
        size: float | None = Field(None, description="size of the file, in units")

    def score(self, clips: Sequence[Clip]) -> list[Row]:
        type(self).scored += len(clips)
        rows: list[Row] = []
        for clip in clips:
            try:
                rows.append(self.Columns(clip_id=clip.id, size=Path(clip.path).stat().st_size / self.config.unit))
            except OSError as error:
                rows.append(self.Columns(clip_id=clip.id, error=str(error.strerror)))
        return rows

    def decide(self, row: Row, policy: Config | None = None) -> Decision:
        if row.error is not None:
            return Decision(False, row.error)
        smallest = (policy or self.Policy()).smallest
        return Decision(True) if row.size >= smallest else Decision(False, f"smaller than {smallest:g}")


class Plugin:
    @hookimpl
    def planish_register_sparsifiers(self, register: Any) -> None:
        for cls in (Half, SingleDevice):
            register(cls.name, f"lightning_samples:{cls.__name__}", cls.summary)

    @hookimpl
    def planish_register_quantizers(self, register: Any) -> None:
        for cls in (Ranged, Rounded):
            register(cls.name, f"lightning_samples:{cls.__name__}", cls.summary)

    @hookimpl
    def planish_register_attention(self, register: Any) -> None:
        register("plain", "lightning_samples:PlainAttention", "plain")

    @hookimpl
    def planish_register_video_models(self, register: Any) -> None:
        register("tint", "lightning_samples:Tint", "tint")

    @hookimpl
    def planish_register_data_filters(self, register: Any) -> None:
        register("by-size", "lightning_samples:BySize", "by size")


def registry() -> Registry:
    """Return a registry with the samples, the models of Transformers, and the runner."""
    from planish_lightning import plugin

    manager = PluginManager()
    manager.register(Plugin(), "samples")
    manager.register(plugin, "lightning")
    return manager.registry
