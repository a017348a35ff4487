"""Training of a tiny video model on clips that were chosen one way or another, and its loss on clean ones."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from planish_egovid.benchmark.tiny_video_model import TinyVideoModel, flow_matching_loss
from planish_egovid.model.torch_threads import torch_threads

Source = NDArray[np.uint8]
"""Frames of clips, uint8 [clips, frames, side, side, 3]."""


@dataclass(frozen=True)
class TrainingSpec:
    """How a model is trained and measured.

    Attributes:
        width: Channels of its finest level.
        side: Pixels of a frame, both ways.
        frames: Frames of a sample.
        stride: Frames of a clip from one stored frame to the next.
        spacing: Stored frames from one frame of a sample to the next.
        batch: Samples a step.
        steps: Steps of the optimizer, the same whatever the model is trained on.
        warmup: Steps in which the learning rate rises.
        learning_rate: Highest learning rate.
        weight_decay: Of AdamW.
        checks: How often the held-out loss is taken on the way.
        held_out_samples: Samples of it, at the end; on the way a quarter of them.
    """

    width: int = 32
    side: int = 32
    frames: int = 8
    stride: int = 4
    spacing: int = 2
    batch: int = 8
    steps: int = 600
    warmup: int = 50
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    checks: int = 6
    held_out_samples: int = 384

    def rate(self, step: int) -> float:
        """Learning-rate factor at ``step`` (from 0): linear warm-up, then a cosine down to a hundredth."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return 0.01 + 0.495 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Trained:
    """What came of a training run.

    Attributes:
        val_loss: Held-out loss at the end.
        by_time: Held-out loss at the end in the four quarters of the path from noise to data.
        curve: Step and held-out loss on the way.
        train_loss: Step and mean training loss since the one before.
        seconds: Processor time.
    """

    val_loss: float
    by_time: list[float]
    curve: list[tuple[int, float]]
    train_loss: list[tuple[int, float]]
    seconds: float


def train(spec: TrainingSpec, source: Source, held_out: Source, seed: int) -> Trained:
    """Train a model in float32 on one core, and measure it.

    The seed decides its first weights, the noise and the times of every step, and which samples are drawn; runs with
    the same seed differ by ``source`` alone. Held-out samples, their noise and times are the same for all.

    Args:
        spec: How.
        source: What to train on.
        held_out: What to measure on.
        seed: Of the run.
    """
    with torch_threads(1):
        return _train(spec, source, held_out, seed)


def made(spec: TrainingSpec, seed: int) -> TinyVideoModel:
    """Return a fresh model; the seed decides its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyVideoModel(spec.width)


def _train(spec: TrainingSpec, source: Source, held_out: Source, seed: int) -> Trained:
    began = time.process_time()
    model = made(spec, seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=spec.learning_rate, betas=(0.9, 0.99), weight_decay=spec.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, spec.rate)
    drawn = torch.Generator().manual_seed(10_000 + seed)
    measured = HeldOut(spec, held_out)
    quick = HeldOut(spec, held_out, share=0.25)
    every = max(1, spec.steps // spec.checks)
    losses: list[float] = []
    curve: list[tuple[int, float]] = []
    train_loss: list[tuple[int, float]] = []
    for step, batch in zip(range(spec.steps), samples(spec, source, seed), strict=False):
        noise = torch.randn(batch.shape, generator=drawn)
        times = torch.rand(len(batch), generator=drawn)
        loss = flow_matching_loss(model, batch, noise, times)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % every == 0:
            train_loss.append((step + 1, sum(losses) / len(losses)))
            curve.append((step + 1, quick.mean_loss(model)))
            losses.clear()
    by_sample = measured.losses(model)
    order = measured.times.argsort()
    quarters = [float(part.mean()) for part in by_sample[order].tensor_split(4)]
    return Trained(float(by_sample.mean()), quarters, curve, train_loss, round(time.process_time() - began, 1))


def samples(spec: TrainingSpec, source: Source, seed: int) -> Iterator[Tensor]:
    """Yield batches of windows for ever, float32 [batch, 3, frames, side, side] in [-1, 1], half of them mirrored.

    Clips come in random order, each once before any comes again.
    """
    random = np.random.default_rng([seed, 31])
    queue: list[int] = []
    while True:
        while len(queue) < spec.batch:
            queue += random.permutation(len(source)).tolist()
        chosen, queue = queue[: spec.batch], queue[spec.batch :]
        starts = random.integers(0, starts_of(spec, source), len(chosen))
        mirrored = random.random(len(chosen)) < 0.5
        batch = torch.stack(
            [window(spec, source[clip], int(start)) for clip, start in zip(chosen, starts, strict=True)]
        )
        turned = torch.from_numpy(mirrored)
        batch[turned] = batch[turned].flip(-1)
        yield batch


def starts_of(spec: TrainingSpec, source: Source) -> int:
    """Return how many windows a clip has."""
    return int(source.shape[1]) - (spec.frames - 1) * spec.spacing


def window(spec: TrainingSpec, clip: NDArray[np.uint8], start: int) -> Tensor:
    """Return a window of a clip, float32 [3, frames, side, side] in [-1, 1]."""
    cut = clip[start : start + (spec.frames - 1) * spec.spacing + 1 : spec.spacing]
    return torch.from_numpy(cut).permute(3, 0, 1, 2).float() / 127.5 - 1


class HeldOut:
    """Samples of held-out clips with their noise, and times spread evenly over the path."""

    def __init__(self, spec: TrainingSpec, source: Source, share: float = 1.0) -> None:
        """Draw ``share`` of the samples that ``spec`` asks for; always the same."""
        count = max(4, round(spec.held_out_samples * share))
        random = np.random.default_rng([count, 37])
        starts = random.integers(0, starts_of(spec, source), count)
        self.data = torch.stack([window(spec, source[i % len(source)], int(s)) for i, s in enumerate(starts)])
        drawn = torch.Generator().manual_seed(count)
        self.noise = torch.randn(self.data.shape, generator=drawn)
        even = (torch.arange(count) + 0.5) / count
        self.times = even[torch.randperm(count, generator=drawn)]
        self.batch = 2 * spec.batch

    @torch.no_grad()
    def losses(self, model: nn.Module) -> Tensor:
        """Return the loss of each sample, float32 [samples]."""
        model.eval()
        found = []
        for first in range(0, len(self.data), self.batch):
            part = slice(first, first + self.batch)
            data, noise, times = self.data[part], self.noise[part], self.times[part]
            at = times.view(-1, 1, 1, 1, 1)
            error = model((1 - at) * noise + at * data, times) - (data - noise)
            found.append(error.square().flatten(1).mean(1))
        model.train()
        return torch.cat(found)

    def mean_loss(self, model: nn.Module) -> float:
        """Return the mean loss."""
        return float(self.losses(model).mean())


def agrees_with_float64(seed: int = 0) -> bool:
    """Whether the model's loss and gradient in float32 are those in float64, and the held-out loss is the same loss."""
    spec = TrainingSpec(width=8, side=16, frames=4, batch=2, held_out_samples=8)
    model = made(spec, seed)
    drawn = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=drawn)
    exact = TinyVideoModel(spec.width).double()
    exact.load_state_dict(model.state_dict())
    source = np.random.default_rng(seed).integers(0, 256, (3, 12, 16, 16, 3), np.uint8)
    held_out = HeldOut(spec, source)
    loss = flow_matching_loss(model, held_out.data, held_out.noise, held_out.times)
    reference = flow_matching_loss(exact, held_out.data.double(), held_out.noise.double(), held_out.times.double())
    loss.backward()  # type: ignore[no-untyped-call]
    reference.backward()  # type: ignore[no-untyped-call]
    pairs: Sequence[tuple[Tensor, Tensor]] = [
        (loss.detach(), reference.detach()),
        (torch.tensor(held_out.mean_loss(model)), reference.detach()),
        (_gradient(model), _gradient(exact)),
    ]
    return all(float((found.double() - right).norm() / right.norm()) < 1e-4 for found, right in pairs)


def _gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
