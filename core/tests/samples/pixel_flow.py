"""Sample video model: flow matching per pixel, conditioned on position, time, prompt and camera."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from planish import DataError
from planish.config import Config as PluginConfig
from planish.interfaces import Condition, Video, VideoModel, VideoRequest
from pydantic import Field
from torch import Tensor, nn

WORDS = 256
"""Rows of the table that words are hashed into."""


class PixelFlow(VideoModel):
    """Each pixel flows from noise to its colour along a velocity that a small network predicts."""

    name = "sample-pixel-flow"
    summary = "per-pixel flow matching under a prompt and a camera path"
    requires = frozenset({Condition.PROMPT})
    accepts = frozenset({Condition.CAMERA_PATH})

    class Config(PluginConfig):
        """Options."""

        width: int = Field(32, ge=4, description="hidden units of the velocity network")

    def __init__(self, config: Any = None, **options: Any) -> None:
        super().__init__(config, **options)
        width = self.config.width
        self.words = nn.EmbeddingBag(WORDS, 8, mode="mean")
        # inputs: colour 3, flow time 1, position 2 shifted by the camera, video time 1, prompt 8
        self.velocity = nn.Sequential(nn.Linear(15, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.out = nn.Linear(width, 3)

    def validate(self, request: VideoRequest) -> None:
        super().validate(request)
        path = request.camera_path
        if path is not None and tuple(path.shape) != (request.num_frames, 4, 4):
            raise DataError(f"camera_path is {list(path.shape)}; expected [{request.num_frames}, 4, 4]")

    @torch.no_grad()
    def generate(self, request: VideoRequest, progress: Any = None) -> Video:
        self.validate(request)
        generator = torch.Generator().manual_seed(request.seed)
        shape = (request.num_frames, request.height, request.width, 3)
        colour = torch.randn(shape, generator=generator)
        where = self._coordinates(*shape[:3], request.camera_path)
        text = self._embed([request.prompt or ""])[0]
        for step in range(request.steps):
            colour = colour + self._flow(colour, step / request.steps, where, text) / request.steps
            if progress is not None:
                progress(step + 1, request.steps, "denoising")
        frames = ((colour + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return Video(frames, request.fps)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"words": self.words, "velocity": self.velocity, "out": self.out}

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Flow-matching loss of ``frames``, float [batch, time, height, width, 3] in [-1, 1], under ``prompt``s."""
        frames, text = batch["frames"], self._embed(batch["prompt"])
        noise = torch.randn_like(frames)
        time = torch.rand(len(frames), 1, 1, 1, 1)
        mixed = (1 - time) * noise + time * frames
        where = self._coordinates(*frames.shape[1:4], None)
        found = torch.stack([self._flow(m, t, where, e) for m, t, e in zip(mixed, time, text, strict=True)])
        return F.mse_loss(found, frames - noise)

    def _flow(self, colour: Tensor, time: float | Tensor, where: Tensor, text: Tensor) -> Tensor:
        flat = colour.shape[:-1]
        at = torch.as_tensor(time, dtype=colour.dtype).expand(*flat, 1)
        return self.out(self.velocity(torch.cat([colour, at, where, text.expand(*flat, -1)], dim=-1)))

    def _coordinates(self, frames: int, height: int, width: int, camera_path: Tensor | None) -> Tensor:
        """Return x, y and time of each pixel in [-1, 1], [frames, height, width, 3]; the camera shifts x and y."""
        axes = (torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in (frames, height, width))
        time, y, x = torch.meshgrid(*axes, indexing="ij")
        if camera_path is not None:
            x = x + camera_path[:, 0, 3, None, None]
            y = y + camera_path[:, 1, 3, None, None]
        return torch.stack([x, y, time], dim=-1)

    def _embed(self, prompts: list[str]) -> Tensor:
        rows = [[zlib.crc32(word.encode()) % WORDS for word in prompt.lower().split()] or [0] for prompt in prompts]
        return torch.stack([self.words(torch.tensor([row]))[0] for row in rows])
