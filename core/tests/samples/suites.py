"""The contract suite of each sample, to which the broken implementations are put as well."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from planish import UnsupportedError
from planish.interfaces import Clip
from planish.testing import (
    AttentionContract,
    DataFilterContract,
    FilterEngineContract,
    LanguageModelContract,
    QuantizerContract,
    SparsifierContract,
    VideoModelContract,
)

from samples.absmax import AbsMax
from samples.activation_range import ActivationRange
from samples.brightness import Brightness, write_ppm
from samples.flicker import Flicker, flickering, write_stream
from samples.magnitude import Magnitude
from samples.one_by_one import OneByOne
from samples.pixel_flow import PixelFlow
from samples.softmax_attention import SoftmaxAttention
from samples.tiny_gpt import TinyGPT


class MagnitudeSuite(SparsifierContract):
    plugin = Magnitude
    installed = False
    bad_options = ({"density": 1.5}, {"interval": 0})


class AbsMaxSuite(QuantizerContract):
    plugin = AbsMax
    installed = False
    bad_options = ({"bits": 9},)


class ActivationRangeSuite(QuantizerContract):
    plugin = ActivationRange
    installed = False
    trains = False


class SoftmaxAttentionSuite(AttentionContract):
    plugin = SoftmaxAttention
    installed = False
    solves = ("plain", "causal", "decode", "grouped", "window", "bias", "masked_row", "early_queries")


class TinyGPTSuite(LanguageModelContract):
    plugin = TinyGPT
    installed = False


class PixelFlowSuite(VideoModelContract):
    plugin = PixelFlow
    installed = False

    def make_batch(self):
        frames = torch.linspace(-1, 1, 2 * 2 * 8 * 8 * 3).view(2, 2, 8, 8, 3)
        return {"frames": frames, "prompt": ["a dark kitchen", "a bright garden"]}


class BrightnessSuite(DataFilterContract):
    plugin = Brightness
    installed = False
    thresholds: ClassVar = {"min_luminance": "stricter", "max_luminance": "looser", "min_side": "stricter"}

    def make_clips(self, folder: Path) -> list[Clip]:
        clips = []
        for number, (level, side) in enumerate([(20, 16), (120, 16), (200, 4), (250, 16)]):
            path = folder / f"{number}.ppm"
            pixels = np.full((side, 2 * side, 3), level, dtype=np.uint8)
            pixels[0, 0] = number
            write_ppm(path, pixels)
            clips.append(Clip(id=f"clip-{number}", path=str(path)))
        return clips


class FlickerSuite(DataFilterContract):
    plugin = Flicker
    installed = False
    bad_options = ({"window_s": 0},)
    thresholds: ClassVar = {"luminance.min": "stricter", "luminance.max": "looser", "flicker.max": "looser"}
    unsettled: ClassVar = ({"luminance": {"max_quantile": 0.7}},)

    def make_clips(self, folder: Path) -> list[Clip]:
        levels = [(20, 30, 25, 20, 30), (120, 180, 60, 120), (200, 10, 190, 250, 10, 60), (250,)]
        for number, some in enumerate(levels):
            write_stream(folder / f"{number}.ppms", flickering(some))
        return [clip for path in sorted(folder.glob("*.ppms")) for clip in Flicker().clips_of(path)]


class TrainingFree(PixelFlow):
    """The same networks, given rather than trained."""

    name = "sample-training-free"

    def loss(self, batch):
        raise UnsupportedError("its networks are given; there is nothing to train")


class TrainingFreeSuite(VideoModelContract):
    plugin = TrainingFree
    installed = False
    trains = False


class OneByOneSuite(FilterEngineContract):
    plugin = OneByOne
    installed = False
    bad_options = ({"clip_timeout_s": 0},)
    limited_options: ClassVar = {"clip_timeout_s": 0.2}
    hang_s = 0.8
    read_ahead = 5
    patience_s = 0.5
