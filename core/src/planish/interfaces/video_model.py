"""VideoModel: generates or edits video under declared conditions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from planish.errors import DataError, did_you_mean
from planish.interfaces.plugin import Plugin
from planish.interfaces.transform import Progress


class Condition(StrEnum):
    """What a video model can be conditioned on. The value is the request's field of the same name."""

    PROMPT = "prompt"
    NEGATIVE_PROMPT = "negative_prompt"
    SOURCE_VIDEO = "source_video"
    SOURCE_PROMPT = "source_prompt"
    MASK = "mask"
    FIRST_FRAME = "first_frame"
    PORTRAIT = "portrait"
    AUDIO = "audio"
    CAMERA_PATH = "camera_path"
    ACTION_TEXT = "action_text"


@dataclass(frozen=True)
class Video:
    """Frames in time.

    Attributes:
        frames: uint8 [time, height, width, 3], RGB.
        fps: Frames per second.
        audio: float32 [channels, samples] in [-1, 1], or None.
        sample_rate: Of ``audio``, in Hz.
    """

    frames: Tensor
    fps: float
    audio: Tensor | None = None
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        """Check dtype, shape and rate."""
        shape = tuple(self.frames.shape)
        if self.frames.dtype != torch.uint8 or len(shape) != 4 or shape[-1] != 3:
            raise DataError(
                f"video frames are {self.frames.dtype} {list(shape)}; expected uint8 [time, height, width, 3]"
            )
        if not self.fps > 0:
            raise DataError(f"video fps is {self.fps}; expected a positive number of frames per second")


@dataclass(frozen=True)
class VideoRequest:
    """One job for a video model. Fields that are conditions are None where they are not given.

    Attributes:
        prompt: Text of what to show.
        negative_prompt: Text of what to avoid.
        source_video: The video to edit or to follow.
        source_prompt: Text that describes ``source_video``.
        mask: bool [time, height, width], True where editing is allowed.
        first_frame: uint8 [height, width, 3].
        portrait: uint8 [height, width, 3] with a face.
        audio: float32 [channels, samples] in [-1, 1].
        sample_rate: Of ``audio``, in Hz.
        camera_path: float [time, 4, 4], camera-to-world.
        action_text: Text of what the person does.
        num_frames: Frames to generate.
        height: In pixels.
        width: In pixels.
        fps: Frames per second.
        steps: Denoising steps.
        guidance_scale: Weight of classifier-free guidance.
        seed: Of the sampler; the same request gives the same video.
        extra: Options that only one model knows, checked by that model.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    source_video: Video | None = None
    source_prompt: str | None = None
    mask: Tensor | None = None
    first_frame: Tensor | None = None
    portrait: Tensor | None = None
    audio: Tensor | None = None
    sample_rate: int | None = None
    camera_path: Tensor | None = None
    action_text: str | None = None
    num_frames: int = 16
    height: int = 256
    width: int = 256
    fps: float = 8.0
    steps: int = 50
    guidance_scale: float = 7.5
    seed: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


class VideoModel(Plugin):
    """Generates video from a request, and gives a training loss where it can be trained."""

    interface_version: ClassVar[int] = 1
    requires: ClassVar[frozenset[Condition]]
    """Conditions without which a request is refused."""
    accepts: ClassVar[frozenset[Condition]] = frozenset()
    """Conditions that are used where they are given; all others are refused rather than ignored."""

    def validate(self, request: VideoRequest) -> None:
        """Check a request before any work is done.

        Raises:
            DataError: A required condition is missing, one is given that the model would ignore, or a size is wrong.
        """
        given = {c for c in Condition if getattr(request, c.value) is not None}
        missing = sorted(c.value for c in self.requires - given)
        if missing:
            raise DataError(f"{self.name} requires {', '.join(missing)}; add it to the request")
        ignored = sorted(c.value for c in given - self.requires - self.accepts)
        if ignored:
            usable = sorted(c.value for c in self.requires | self.accepts)
            hint = did_you_mean(ignored[0], usable)
            raise DataError(
                f"{self.name} cannot use {', '.join(ignored)}{hint}; leave it out (it uses {', '.join(usable)})"
            )
        for name in ("num_frames", "height", "width", "steps"):
            if getattr(request, name) < 1:
                raise DataError(f"{name} is {getattr(request, name)}; expected at least 1")

    @abstractmethod
    def generate(self, request: VideoRequest, progress: Progress | None = None) -> Video:
        """Make the video of a valid request: ``num_frames`` frames of ``height`` × ``width``, the same for a seed.

        Raises:
            DataError: :meth:`validate` refuses the request.
        """

    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """Return the networks by name, so that transforms and optimizers reach them."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the scalar training loss of a batch, differentiable in the parameters of :meth:`modules`.

        Raises:
            UnsupportedError: The method is training-free.
        """
