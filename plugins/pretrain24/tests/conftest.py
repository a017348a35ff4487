"""Models and a training loop that the tests share."""

from collections.abc import Callable, Iterator
from typing import Any

import planish
import pytest
import torch
from planish.api import LiveTransform
from planish.plugins.manager import PluginManager
from planish.plugins.registry import Registry
from planish_pretrain24 import Pretrain24, plugin
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class Mlp(nn.Module):
    """Two feed-forward networks, plain and gated, behind each other."""

    def __init__(self, width: int = 16, inner: int = 32) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.gated = Gated(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.fc2(torch.nn.functional.gelu(self.fc1(x)))
        return x + self.gated(x)


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, inner: int, act: nn.Module | None = None) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.act_fn = act or nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


@pytest.fixture
def mlp() -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(1)
        return Mlp()

    return make


@pytest.fixture
def registry() -> Registry:
    """The plugin alone, registered in memory: nothing needs to be installed."""
    manager = PluginManager()
    manager.register(plugin, "pretrain24")
    return manager.registry


Train = Callable[..., list[dict[str, float]]]


@pytest.fixture
def train() -> Train:
    """``train(model, live, optimizer, steps, first=0, micro=1)``: regression on fixed batches; returns all metrics."""

    def run(
        model: nn.Module,
        live: LiveTransform | None,
        optimizer: torch.optim.Optimizer,
        steps: int,
        first: int = 0,
        micro: int = 1,
        each: Callable[[int], Any] | None = None,
    ) -> list[dict[str, float]]:
        metrics = []
        for step in range(first, first + steps):
            optimizer.zero_grad()
            for part in range(micro):
                generator = torch.Generator().manual_seed(1000 * step + part)
                x = torch.randn(3, 5, 16, generator=generator)
                (model(x) - x.roll(1, -1)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if live is not None:
                live.on_gradients(step)
            optimizer.step()
            if live is not None:
                metrics.append(dict(live.on_step(step + 1)))
            if each is not None:
                each(step + 1)
        return metrics

    return run


@pytest.fixture
def start() -> Callable[..., LiveTransform]:
    """``start(model, total_steps, **options)``: apply, and tell the length of the run."""

    def begin(model: nn.Module, total_steps: int | None = None, **options: Any) -> LiveTransform:
        live = planish.apply(model, Pretrain24(options))
        if total_steps is not None:
            live.on_train_start(total_steps)
        return live

    return begin
