"""Adapter for DOVER (Wu et al., ICCV 2023), which users install themselves: its licence is for non-commercial use.

``pip install git+https://github.com/VQAssessment/DOVER``, and download ``DOVER.pth`` from its releases. The package
called ``dover`` on PyPI is something else.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from planish.errors import ConfigError, UnsupportedError
from planish.interfaces import ClipWork, Stage
from pydantic import Field

from planish_egovid.clarity import dover_views as views
from planish_egovid.clarity.fusion import fused
from planish_egovid.model.placement import Placement
from planish_egovid.model.source import explained, require
from planish_egovid.video.request import FrameRequest, VideoInfo
from planish_egovid.video.view import ClipView

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("planish_egovid")

INSTALL = "pip install git+https://github.com/VQAssessment/DOVER"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ARCHITECTURE: dict[str, Any] = {
    "backbone": {"technical": {"type": "swin_tiny_grpb"}, "aesthetic": {"type": "conv_tiny"}},
    "backbone_preserve_keys": "technical,aesthetic",
    "divide_head": True,
    "vqa_head": {"in_channels": 768, "hidden_channels": 64},
}
"""``model.args`` of ``dover.yml``; the options that only matter in training are left out."""
TECHNICAL, AESTHETIC = "dover/technical", "dover/aesthetic"
"""Payload: uint8 [96, 224, 224, 3] and [32, 224, 224, 3]."""


class DoverConfig(Placement):
    """Where DOVER's weights are, and how it runs."""

    checkpoint: str = Field(min_length=1, description="file of weights: DOVER.pth, from the releases of DOVER")
    clips: int = Field(4, ge=1, description="clips a forward pass on a GPU")

    def resolved_dtype(self, device: str) -> torch.dtype:
        """Return the torch dtype to use: float32, as published, unless another one is named."""
        import torch

        return torch.float32 if self.dtype == "auto" else super().resolved_dtype(device)


def dover_request(video: VideoInfo, duration_s: float) -> FrameRequest:
    """Return the request for the frames of both branches: all of them as decoded, because pieces are cut from them."""
    frames = _frame_count(video, duration_s)
    numbers = views.unique_frames(views.technical_frames(frames), views.aesthetic_frames(frames))
    return FrameRequest(tuple((number + 0.5) / video.fps for number in numbers), "rgb", fit="native")


def prepare(view: ClipView) -> None:
    """Put what both branches look at into the payload."""
    frames = _frame_count(view.video, view.duration_s)
    technical, aesthetic = views.technical_frames(frames), views.aesthetic_frames(frames)
    at = {number: i for i, number in enumerate(views.unique_frames(technical, aesthetic))}
    images = view.frames(dover_request(view.video, view.duration_s)).images
    view.payload[TECHNICAL] = views.fragments(images)[[at[number] for number in technical]]
    view.payload[AESTHETIC] = views.whole(images[[at[number] for number in aesthetic]])


def _frame_count(video: VideoInfo, duration_s: float) -> int:
    return max(1, round(duration_s * video.fps))


class DoverScorer:
    """DOVER's network with the arithmetic around it.

    The network is called with ``{"technical": [3 n, 3, 32, 224, 224], "aesthetic": [n, 3, 32, 224, 224]}`` for n clips
    and returns a list of two tensors of raw scores in that order, whose first axis is that of their input.
    """

    def __init__(self, network: Any, *, name: str, device: str, dtype: torch.dtype, clips: int = 4, threads: int = 1):
        """Wrap a network, which is moved to ``device``."""
        self.name = f"dover/{name}/{str(dtype).removeprefix('torch.')}"
        self.network = network.eval().to(device=device, dtype=dtype)
        self.device, self.dtype, self.threads = device, dtype, threads
        # On a processor a clip is a pass of its own, so that its score does not depend on its neighbours.
        self.clips = clips if device.startswith("cuda") else 1

    @classmethod
    def load(cls, config: DoverConfig) -> DoverScorer:
        """Import the user's DOVER and load its weights.

        Raises:
            ConfigError: The checkpoint does not exist.
            UnsupportedError: DOVER is not installed, or cannot be loaded.
        """
        require_dover()
        import torch

        path = Path(config.checkpoint)
        if not path.is_file():
            raise ConfigError(f"dover.checkpoint: {path} is no file; download DOVER.pth from the releases of DOVER")
        device = config.resolved_device()
        logger.info("DOVER: loading %s", path)
        with explained("DOVER", str(path), "dover.checkpoint"):
            network = importlib.import_module("dover.models").DOVER(**ARCHITECTURE)
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        dtype = config.resolved_dtype(device)
        return cls(network, name=path.name, device=device, dtype=dtype, clips=config.clips, threads=config.threads)

    def raw(
        self, technical: Sequence[NDArray[np.uint8]], aesthetic: Sequence[NDArray[np.uint8]]
    ) -> list[tuple[float, float]]:
        """Return the raw technical and aesthetic score of each clip.

        Args:
            technical: Each uint8 [96, 224, 224, 3].
            aesthetic: Each uint8 [32, 224, 224, 3].
        """
        import torch

        from planish_egovid.model.torch_threads import torch_threads

        found: list[tuple[float, float]] = []
        with torch.inference_mode(), torch_threads(self.threads):
            for start in range(0, len(technical), self.clips):
                part = slice(start, start + self.clips)
                inputs = {"technical": self._pixels(technical[part]), "aesthetic": self._pixels(aesthetic[part])}
                count = len(inputs["aesthetic"])
                outputs = self.network(inputs)
                means = [output.double().reshape(count, -1).mean(dim=1).tolist() for output in outputs]
                found += zip(*means, strict=True)
        return found

    def _pixels(self, videos: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return normalised pixels, [clips, 3, 32, 224, 224], the clips of all videos after each other."""
        import torch

        pixels = torch.from_numpy(np.stack(videos)).to(self.device)
        pixels = pixels.reshape(-1, views.CLIP_LENGTH, *pixels.shape[2:]).to(torch.float32)
        normalised = (pixels - torch.tensor(MEAN, device=self.device)) / torch.tensor(STD, device=self.device)
        return normalised.permute(0, 4, 1, 2, 3).to(self.dtype)


def require_dover() -> None:
    """Make sure that DOVER can be imported, without importing it.

    Raises:
        UnsupportedError: It is not installed; the message has the install line.
    """
    require("torch", "clip")
    try:
        found = importlib.util.find_spec("dover.models") is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise UnsupportedError(
            f"dover_score needs DOVER, which is not installed; {INSTALL} (S-Lab licence, non-commercial; the package "
            "'dover' on PyPI is something else)"
        )


def dover_stage(config: DoverConfig) -> Stage:
    """Return the stage that turns the payload into ``dover_score`` and its two parts.

    Raises:
        UnsupportedError: DOVER is not installed.
    """
    require_dover()
    return Stage("dover", _Score(config), batch_size=8, **config.resources())


class _Score:
    """What the stage runs. The model is loaded with the first clip that needs it."""

    def __init__(self, config: DoverConfig) -> None:
        self.config = config

    def __call__(self, works: list[ClipWork]) -> list[ClipWork]:
        found = [work for work in works if work.error is None and TECHNICAL in work.payload]
        if not found:
            return works
        scorer = _loaded(self.config)
        technical = [work.payload.pop(TECHNICAL) for work in found]
        aesthetic = [work.payload.pop(AESTHETIC) for work in found]
        for work, (t, a) in zip(found, scorer.raw(technical, aesthetic), strict=True):
            work.values |= {
                "dover_score": fused(t, a),
                "dover_technical": t,
                "dover_aesthetic": a,
                "dover_backend": scorer.name,
            }
        return works


@lru_cache(maxsize=1)
def _loaded(config: DoverConfig) -> DoverScorer:
    return DoverScorer.load(config)
