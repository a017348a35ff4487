"""StandInRaft: a small module with the parts and the forward of torchvision's RAFT, for tests that need none of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class StandInCorrelation(nn.Module):
    """All pairs of cells, looked up at a position and its four neighbours."""

    out_channels = 5

    def build_pyramid(self, fmap1: Tensor, fmap2: Tensor) -> None:
        """Keep the products of all cells of two feature maps ``[batch, channels, h, w]``."""
        self.corr_pyramid = [torch.einsum("bchw,bcij->bhwij", fmap1, fmap2) / fmap1.shape[1] ** 0.5]

    def index_pyramid(self, centroids_coords: Tensor) -> Tensor:
        """Return ``[batch, 5, h, w]`` for positions ``[batch, 2, h, w]``."""
        batch, _, height, width = centroids_coords.shape
        volume = self.corr_pyramid[0].reshape(batch * height * width, 1, height, width)
        scale = torch.tensor([width - 1, height - 1], device=volume.device)
        found = []
        for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            at = centroids_coords.permute(0, 2, 3, 1) + torch.tensor(shift, device=volume.device)
            at = (2 * at / scale - 1).reshape(batch * height * width, 1, 1, 2)
            looked = functional.grid_sample(volume, at, align_corners=True)
            found.append(looked.reshape(batch, height, width))
        return torch.stack(found, 1)


class StandInPyramid(nn.Module):
    """Correlations laid out and sampled as by torchvision's ``CorrBlock``: two levels, windows of 3x3."""

    num_levels, radius = 2, 1
    out_channels = num_levels * (2 * radius + 1) ** 2

    def build_pyramid(self, fmap1: Tensor, fmap2: Tensor) -> None:
        """Keep the products of all cells of two feature maps ``[batch, channels, h, w]``, and their averages by 2x2."""
        batch, channels, height, width = fmap1.shape
        volume = torch.einsum("bchw,bcij->bhwij", fmap1, fmap2) / channels**0.5
        volume = volume.reshape(batch * height * width, 1, height, width)
        self.corr_pyramid = [volume, functional.avg_pool2d(volume, 2)]

    def index_pyramid(self, centroids_coords: Tensor) -> Tensor:
        """Return ``[batch, 18, h, w]`` for positions ``[batch, 2, h, w]``; x is the slower offset."""
        batch, _, height, width = centroids_coords.shape
        steps = torch.arange(-self.radius, self.radius + 1, device=centroids_coords.device)
        window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
        found = []
        for level, volume in enumerate(self.corr_pyramid):
            at = centroids_coords.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2) / 2**level + window
            scale = torch.tensor([volume.shape[3] - 1, volume.shape[2] - 1], device=volume.device)
            looked = functional.grid_sample(volume, 2 * at / scale - 1, align_corners=True)
            found.append(looked.reshape(batch, height, width, -1))
        return torch.cat(found, -1).permute(0, 3, 1, 2).contiguous()


class StandInUpdate(nn.Module):
    """One convolution in place of the recurrent unit."""

    hidden_state_size = 4

    def __init__(self, correlations: int = StandInCorrelation.out_channels) -> None:
        """Draw weights for so many correlations of each cell."""
        super().__init__()
        self.mix = nn.Conv2d(4 + 6 + correlations + 2, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next hidden state and a step of the flow."""
        hidden = torch.tanh(self.mix(torch.cat([hidden, context, correlation, flow / 8], 1)))
        return hidden, 2 * self.head(hidden)


class StandInRaft(nn.Module):
    """Random weights; finds no true flow, but one that depends on both frames.

    ``pyramid``: whether correlations are laid out as torchvision's.

    Attributes:
        encoded: Images that went through the feature encoder so far.
    """

    def __init__(self, seed: int = 0, *, pyramid: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.feature_encoder = nn.Sequential(nn.Conv2d(3, 8, 9, 8, 4), nn.InstanceNorm2d(8))
            self.context_encoder = nn.Sequential(nn.Conv2d(3, 10, 9, 8, 4), nn.BatchNorm2d(10))
            self.corr_block = StandInPyramid() if pyramid else StandInCorrelation()
            self.update_block = StandInUpdate(self.corr_block.out_channels)
            self.mask_predictor = nn.Conv2d(4, 9 * 64, 1)
        self.encoded = 0
        self.feature_encoder.register_forward_hook(lambda module, given, out: self._count(len(out)))

    def _count(self, images: int) -> None:
        self.encoded += images

    def forward(self, image1: Tensor, image2: Tensor, num_flow_updates: int = 12) -> list[Tensor]:
        """Return the flow ``[batch, 2, height, width]`` after each update, written down as in the paper."""
        fmap1, fmap2 = self.feature_encoder(image1), self.feature_encoder(image2)
        self.corr_block.build_pyramid(fmap1, fmap2)
        hidden, context = torch.split(self.context_encoder(image1), [4, 6], dim=1)
        hidden, context = torch.tanh(hidden), torch.relu(context)
        batch, _, height, width = fmap1.shape
        ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        start = torch.stack([xs, ys]).float()[None].repeat(batch, 1, 1, 1).to(fmap1.device)
        at, flows = start, []
        for _ in range(num_flow_updates):
            hidden, step = self.update_block(hidden, context, self.corr_block.index_pyramid(at), at - start)
            at = at + step
            flows.append(_naively_upsampled(at - start, self.mask_predictor(hidden)))
        return flows


def _naively_upsampled(flow: Tensor, mask: Tensor) -> Tensor:
    """Pixel by pixel: the convex combination of the 3x3 coarse neighbours, zero beyond the edge."""
    batch, _, height, width = flow.shape
    weights = torch.softmax(mask.view(batch, 9, 8, 8, height, width), 1)
    padded = functional.pad(8 * flow, (1, 1, 1, 1))
    fine = torch.zeros(batch, 2, 8 * height, 8 * width, device=flow.device)
    for y in range(8):
        for x in range(8):
            parts = [
                weights[:, k, y, x][:, None] * padded[:, :, k // 3 : k // 3 + height, k % 3 : k % 3 + width]
                for k in range(9)
            ]
            fine[:, :, y::8, x::8] = torch.stack(parts).sum(0)
    return fine
