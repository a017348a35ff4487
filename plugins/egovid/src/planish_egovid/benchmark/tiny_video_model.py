"""A video model small enough to train on one core, and its loss: flow matching in pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class TinyVideoModel(nn.Module):
    """A U-Net whose convolutions take space and time in turn, with attention over all of the coarsest level.

    Args:
        width: Channels of the finest level; the others have two and four times as many.
        heads: Heads of the attention, on ``4 * width`` channels.
    """

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        """Create it with weights from torch's global random state; its output starts at zero."""
        super().__init__()
        fine, middle, coarse = width, 2 * width, 4 * width
        self.noise_level = NoiseLevel(coarse)
        self.enter = nn.Conv3d(12, fine, (1, 3, 3), padding=(0, 1, 1))
        self.fine_in = Block(fine, fine, coarse)
        self.middle_in = Block(fine, middle, coarse)
        self.coarse_in = Block(middle, coarse, coarse)
        self.attention = SpaceTimeAttention(coarse, heads)
        self.coarse_out = Block(coarse, coarse, coarse)
        self.middle_out = Block(coarse + middle, middle, coarse)
        self.fine_out = Block(middle + fine, fine, coarse)
        last = nn.Conv3d(fine, 12, (1, 3, 3), padding=(0, 1, 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.leave = nn.Sequential(_norm(fine), nn.SiLU(), last)

    def forward(self, video: Tensor, time: Tensor) -> Tensor:
        """Return the velocity that a noisy video has.

        Args:
            video: float [batch, 3, frames, height, width]; height and width are multiples of 8.
            time: float [batch], 0 for noise, 1 for data.

        Returns:
            float, shaped as ``video``.
        """
        level = self.noise_level(time)
        fine = self.fine_in(self.enter(_folded(video)), level)
        middle = self.middle_in(_halved(fine), level)
        coarse = self.coarse_in(_halved(middle), level)
        coarse = self.coarse_out(self.attention(coarse), level)
        middle = self.middle_out(torch.cat([_doubled(coarse), middle], 1), level)
        fine = self.fine_out(torch.cat([_doubled(middle), fine], 1), level)
        return _unfolded(self.leave(fine))


class NoiseLevel(nn.Module):
    """Sines of the time, mixed."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        """Create it for vectors of ``width``."""
        super().__init__()
        self.register_buffer("frequencies", 1000 * torch.exp(-math.log(10_000) * torch.linspace(0, 1, width // 2)))
        self.mix = nn.Sequential(nn.Linear(width // 2 * 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, time: Tensor) -> Tensor:
        """Return float [batch, width] for times [batch]."""
        angles = time[:, None] * self.frequencies
        mixed: Tensor = self.mix(torch.cat([angles.sin(), angles.cos()], -1))
        return mixed


class Block(nn.Module):
    """Two convolutions in space and one in time, beside a shortcut; the noise level scales and shifts in between."""

    def __init__(self, channels: int, out: int, level: int) -> None:
        """Create it for ``channels`` in and ``out`` out, and vectors of ``level``."""
        super().__init__()
        self.before = _norm(channels)
        self.space = nn.Conv3d(channels, out, (1, 3, 3), padding=(0, 1, 1))
        self.modulate = nn.Linear(level, 2 * out)
        self.between = _norm(out)
        self.time = nn.Conv3d(out, out, (3, 1, 1), padding=(1, 0, 0))
        self.space_again = nn.Conv3d(out, out, (1, 3, 3), padding=(0, 1, 1))
        self.shortcut = nn.Conv3d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return [batch, out, frames, height, width]."""
        scale, shift = self.modulate(level)[:, :, None, None, None].chunk(2, 1)
        inner = self.space(functional.silu(self.before(x)))
        inner = functional.silu(self.between(inner) * (1 + scale) + shift)
        inner = self.space_again(functional.silu(self.time(inner)))
        joined: Tensor = self.shortcut(x) + inner
        return joined


class SpaceTimeAttention(nn.Module):
    """Self-attention over all positions of all frames."""

    def __init__(self, channels: int, heads: int) -> None:
        """Create it for ``channels``, shared among ``heads``."""
        super().__init__()
        self.heads = heads
        self.norm = _norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [batch, channels, frames, height, width]."""
        batch, channels = x.shape[:2]
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(batch, -1, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return x + mixed.transpose(1, 2).view_as(x)


def flow_matching_loss(model: nn.Module, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Return the mean squared error of the velocity on the straight path from noise to data, a scalar.

    Conditional flow matching (Lipman et al., arXiv 2210.02747) with straight paths (Liu et al., arXiv 2209.03003): a
    point at time t is (1 - t) noise + t data, and its velocity is data - noise.

    Args:
        model: Called as ``model(video, time)``.
        data: float [batch, 3, frames, height, width].
        noise: Shaped as ``data``, standard normal.
        time: float [batch], in [0, 1].
    """
    at = time.view(-1, 1, 1, 1, 1)
    return functional.mse_loss(model((1 - at) * noise + at * data, time), data - noise)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, channels), channels)


def _folded(video: Tensor) -> Tensor:
    """Put 2x2 pixels into channels."""
    return functional.pixel_unshuffle(video.transpose(1, 2), 2).transpose(1, 2)


def _unfolded(video: Tensor) -> Tensor:
    return functional.pixel_shuffle(video.transpose(1, 2), 2).transpose(1, 2)


def _halved(x: Tensor) -> Tensor:
    return functional.avg_pool3d(x, (1, 2, 2))


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
