"""The ways of training that the learning experiment compares, and how each is put on a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import planish
from planish.errors import ConfigError
from planish_kernels.nn import EncodedLinear, LinearEncoders
from torch import nn

from planish_jetfire.benchmark.fake_int8 import Scales, encoders
from planish_jetfire.benchmark.planted_outliers import PlantedOutliers
from planish_jetfire.benchmark.tiled_norm import tile_norms
from planish_jetfire.quantizer import Jetfire


@dataclass(frozen=True)
class Variant:
    """How a model is trained.

    Attributes:
        label: in tables and figures.
        jetfire: options of this plugin; None leaves it out.
        scales: what shares a scale where INT8 is emulated; None leaves the emulation out.
        cuts: whether the emulation cuts codes off where it should round them.
        outliers: whether channel outliers are planted.
        tiled_norm: whether the norms' backward pass has the published defect.
    """

    label: str
    jetfire: Mapping[str, Any] | None = None
    scales: Scales | None = None
    cuts: bool = False
    outliers: bool = False
    tiled_norm: bool = False


_BLOCK_32 = {"block": 32}
_FLOAT8 = {"block": 128, "code": "float8"}
VARIANTS: Mapping[str, Variant] = {
    "float32": Variant("full precision"),
    "jetfire-32": Variant("Jetfire, blocks of 32", jetfire=_BLOCK_32),
    "jetfire-128": Variant("Jetfire, blocks of 128", jetfire={"block": 128}),
    "float8-128": Variant("Jetfire, float8 blocks of 128", jetfire=_FLOAT8),
    "per-token": Variant("INT8, a scale per token", scales="token"),
    "per-tensor": Variant("INT8, a scale per tensor", scales="tensor"),
    "float32+outliers": Variant("full precision", outliers=True),
    "jetfire-32+outliers": Variant("Jetfire, blocks of 32", jetfire=_BLOCK_32, outliers=True),
    "jetfire-128+outliers": Variant("Jetfire, blocks of 128", jetfire={"block": 128}, outliers=True),
    "float8-128+outliers": Variant("Jetfire, float8 blocks of 128", jetfire=_FLOAT8, outliers=True),
    "per-token+outliers": Variant("INT8, a scale per token", scales="token", outliers=True),
    "per-tensor+outliers": Variant("INT8, a scale per tensor", scales="tensor", outliers=True),
    "nearest-gradients": Variant("Jetfire 32, gradients to nearest", jetfire={"block": 32, "stochastic": False}),
    "tiled-norm": Variant("Jetfire 32, means of norms over 128 columns", jetfire=_BLOCK_32, tiled_norm=True),
    "cut": Variant("blocks of 32, cut off in place of rounded", scales="block", cuts=True),
}
"""Name -> how; ``float32`` and ``float32+outliers`` are what the others are held against."""


def variant_of(name: str) -> Variant:
    """The variant of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in VARIANTS:
        raise ConfigError(f"variant {name!r} is unknown; one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


class Trained:
    """A model under one variant: what its optimizer works on, and the hooks of its training loop."""

    def __init__(self, model: nn.Module, variant: Variant, *, flow: str, seed: int, total_steps: int) -> None:
        self.model = model
        self._planted = PlantedOutliers(model) if variant.outliers else None
        if variant.tiled_norm:
            tile_norms(model)
        self._emulated: list[tuple[EncodedLinear, LinearEncoders]] = []
        self._live: planish.LiveTransform | None = None
        if variant.jetfire is not None:
            self._live = planish.apply(model, Jetfire({**variant.jetfire, "flow": flow, "seed": seed}))
            self._live.on_train_start(total_steps)
        elif variant.scales is not None:
            self._emulated = _encode_linears(model, variant, seed)

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer works on."""
        return list(self.model.parameters()) if self._planted is None else self._planted.parameters(self.model)

    def before_step(self, step: int, largest_norm: float) -> None:
        """Clip the gradients and make them ready for optimizer step ``step`` (from 0)."""
        if self._planted is not None:
            self._planted.pull_gradients()
        nn.utils.clip_grad_norm_(self.parameters(), largest_norm)
        if self._live is not None:
            self._live.on_gradients(step)

    def after_step(self, steps: int) -> None:
        """Follow the optimizer after ``steps`` steps."""
        if self._planted is not None:
            self._planted.push()
        if self._live is not None:
            self._live.on_step(steps)

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """The model in full precision, on the weights that training found so far."""
        self.model.eval()
        for layer, _ in self._emulated:
            layer.encoders = LinearEncoders()
        try:
            yield self.model
        finally:
            for layer, own in self._emulated:
                layer.encoders = own
            self.model.train()


def _encode_linears(model: nn.Module, variant: Variant, seed: int) -> list[tuple[EncodedLinear, LinearEncoders]]:
    """Emulate INT8 in the linears that the plugin takes in its linear flow."""
    assert variant.scales is not None
    planned = Jetfire({"flow": "linear"}).plan(model)
    encoded = []
    for number, name in enumerate(module.name for module in planned.touched):
        linear = model.get_submodule(name)
        own = encoders(variant.scales, 1000 * seed + number, cuts=variant.cuts)
        layer = EncodedLinear.from_linear(linear, own, transposed_weight=not isinstance(linear, nn.Linear))
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
        encoded.append((layer, own))
    return encoded
