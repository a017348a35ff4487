"""Adapter for EgoVideo (OpenGVLab), a video-text model for egocentric video that users install themselves.

Its code is no package and its weights are not on a hub: clone OpenGVLab/EgoVideo, download ``ckpt_4frames.pth``, and
name both in the options. The factory is called as ``build_model(ckpt_path=..., num_frames=4)`` and returns a model with
``encode_image`` and ``encode_text``, and a tokenizer. EgoVideo's own function reads BERT's configuration from a path
that is written into its source; point it to yours there, or name a factory of your own.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from planish.errors import ConfigError, UnsupportedError
from planish.interfaces import ClipWork, Stage
from pydantic import Field

from planish_egovid.model.placement import Placement
from planish_egovid.model.source import explained, require
from planish_egovid.semantics.image_embedding import request
from planish_egovid.semantics.square import squares
from planish_egovid.semantics.text import stated
from planish_egovid.video.view import ClipView

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("planish_egovid")

FRAMES: tuple[int, ...] = (0, 30, 60, 90)
"""Frames that EgoVid's ``egovideo_clean.py`` looks at, at 30 a second."""
SIDE = 224
WORDS = 20
"""Tokens that a text is padded or cut to."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, not CLIP's."""
PAYLOAD = "egovideo/images"


class EgoVideoConfig(Placement):
    """Where your copy of EgoVideo is."""

    source: str = Field(min_length=1, description="folder that is put on Python's path: EgoVideo's folder 'backbone'")
    checkpoint: str = Field(min_length=1, description="file of weights: ckpt_4frames.pth")
    factory: str = Field(
        "model.setup_model:build_model",
        pattern=r"^[\w.]+:[\w.]+$",
        description="module:function in that folder; called with ckpt_path and num_frames, gives model and tokenizer",
    )
    clips: int = Field(
        16, ge=1, json_schema_extra={"decides_scores": False}, description="clips a forward pass on a GPU"
    )

    def resolved_dtype(self, device: str) -> torch.dtype:
        """Return the torch dtype to use: on a GPU float16, as published, unless another one is named."""
        import torch

        return torch.float16 if self.dtype == "auto" and device.startswith("cuda") else super().resolved_dtype(device)


@runtime_checkable
class VideoTextScorer(Protocol):
    """Scores how well a text describes a video.

    Attributes:
        name: Model and number format; stored with the scores.
    """

    name: str

    def scores(self, videos: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> list[float]:
        """Return a score for each uint8 [4, 224, 224, 3] video, RGB, and its text."""
        ...


class EgoVideoScorer:
    """A :class:`VideoTextScorer` around EgoVideo: the dot product of its features, which are not normalised."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        device: str,
        dtype: torch.dtype,
        clips: int = 16,
        threads: int = 1,
    ) -> None:
        """Wrap a model and its tokenizer; the model is moved to ``device``."""
        self.name = f"egovideo/{name}/{str(dtype).removeprefix('torch.')}"
        self.model, self.tokenizer = model.eval().to(device=device, dtype=dtype), tokenizer
        self.device, self.dtype, self.threads = device, dtype, threads
        # On a processor a clip is a pass of its own, so that its score does not depend on its neighbours.
        self.clips = clips if device.startswith("cuda") else 1

    @classmethod
    def load(cls, config: EgoVideoConfig) -> EgoVideoScorer:
        """Import the user's copy of EgoVideo and load its weights.

        Raises:
            ConfigError: The folder, the file or the factory does not exist.
            UnsupportedError: The code cannot be imported or does not give a model; the message says why.
        """
        source, checkpoint = Path(config.source), Path(config.checkpoint)
        if not source.is_dir():
            raise ConfigError(f"egovideo.source: {source} is no folder; clone OpenGVLab/EgoVideo, name its 'backbone'")
        if not checkpoint.is_file():
            raise ConfigError(f"egovideo.checkpoint: {checkpoint} is no file; download ckpt_4frames.pth of EgoVideo")
        module, _, attribute = config.factory.partition(":")
        device = config.resolved_device()
        logger.info("EgoVideo: running %s of %s, weights %s", config.factory, source, checkpoint)
        with explained("EgoVideo", str(checkpoint), "egovideo"), _importable(source):
            factory = getattr(importlib.import_module(module), attribute, None)
            if factory is None:
                raise ConfigError(f"egovideo.factory: {module} has no {attribute!r}; name MODULE:FUNCTION in {source}")
            made = factory(ckpt_path=str(checkpoint), num_frames=len(FRAMES))
        if not isinstance(made, tuple) or len(made) != 2 or not hasattr(made[0], "encode_image"):
            raise UnsupportedError(
                f"egovideo.factory: {config.factory} gave {type(made).__name__}; expected (model, tokenizer), "
                "the model with encode_image and encode_text"
            )
        return cls(
            *made,
            name=checkpoint.name,
            device=device,
            dtype=config.resolved_dtype(device),
            clips=config.clips,
            threads=config.threads,
        )

    def scores(self, videos: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> list[float]:
        """Return image_feature · text_feature for each pair, in float64."""
        import torch

        from planish_egovid.model.torch_threads import torch_threads

        found: list[float] = []
        with torch.inference_mode(), torch_threads(self.threads):
            for start in range(0, len(videos), self.clips):
                stop = start + self.clips
                seen = self.model.encode_image(self.pixels(np.stack(videos[start:stop])))
                ids, mask = self._tokens(list(texts[start:stop]))
                read = self.model.encode_text(ids, mask)
                found += (seen.double() * read.double()).sum(-1).tolist()
        return found

    def pixels(self, videos: NDArray[np.uint8]) -> torch.Tensor:
        """Return uint8 [clips, 4, 224, 224, 3] as EgoVideo takes it: normalised [clips, 3, 4, 224, 224]."""
        import torch

        mean = torch.tensor(MEAN, device=self.device).mul(255).view(1, 3, 1, 1, 1)
        std = torch.tensor(STD, device=self.device).mul(255).view(1, 3, 1, 1, 1)
        pixels = torch.from_numpy(videos).to(self.device).permute(0, 4, 1, 2, 3).float()
        return ((pixels - mean) / std).to(self.dtype)

    def _tokens(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.tokenizer(texts, max_length=WORDS, padding="max_length", truncation=True, return_tensors="pt")
        return tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put a folder on Python's path while the user's code is imported from it."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))


@functools.lru_cache(maxsize=1)
def load_scorer(config: EgoVideoConfig) -> VideoTextScorer:
    """Return the scorer of the options, loaded once a process."""
    return EgoVideoScorer.load(config)


def prepare(view: ClipView, times_s: Sequence[float]) -> None:
    """Put the frames at ``times_s`` into the payload: ``egovideo/images``, uint8 [4, 224, 224, 3], RGB.

    Shorter side to 224, middle cut out, as torchvision's ``Resize`` and ``CenterCrop`` do (bilinear, antialiased).
    """
    images = view.frames(request(times_s)).images
    view.payload[PAYLOAD] = squares(images, SIDE, resampling="bilinear", rounds_crop=True)


def stage(config: EgoVideoConfig) -> Stage:
    """Return the stage that writes ``egovideo_score`` and adds to ``text_backend``.

    Raises:
        UnsupportedError: torch or Pillow is not installed.
    """
    require("torch", "clip")
    require("PIL", "clip")

    def run(works: list[ClipWork]) -> list[ClipWork]:
        found = [work for work in works if work.error is None and PAYLOAD in work.payload]
        if found:
            scorer = load_scorer(config)
            videos = [work.payload.pop(PAYLOAD) for work in found]
            scores = scorer.scores(videos, [stated(work.clip.text) or "" for work in found])
            for work, score in zip(found, scores, strict=True):
                work.values["egovideo_score"] = score if np.isfinite(score) else None
                if not np.isfinite(score):
                    work.values["text_reason"] = "the model's score is not finite"
                names = [work.values.get("text_backend"), scorer.name]
                work.values["text_backend"] = "; ".join(name for name in names if name)
        return works

    return Stage("egovideo", run, batch_size=config.clips, **config.resources())
