"""Models and a training loop that the tests share."""

from collections.abc import Callable, Iterator
from typing import Any

import planish
import pytest
import torch
import torch.nn.functional as F
from planish.api import LiveTransform
from planish.plugins.manager import PluginManager
from planish.plugins.registry import Registry
from planish.testing.tiny_transformer import TinyAttention, TinyBlock, TinyTransformer
from planish_jetfire import Jetfire, plugin
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class RootMeanSquareNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class PostNormBlock(nn.Module):
    """``h = norm(x + attention(x))``, ``norm(h + mlp(h))``."""

    def __init__(self, dim: int = 32, inner: int = 64, heads: int = 2) -> None:
        super().__init__()
        self.attn, self.norm1 = TinyAttention(dim, heads), nn.LayerNorm(dim)
        self.fc1, self.fc2, self.norm2 = nn.Linear(dim, inner), nn.Linear(inner, dim), nn.LayerNorm(dim, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x + self.attn(x))
        return self.norm2(h + self.fc2(F.gelu(self.fc1(h))))


class BareLayerNorm(nn.Module):
    """As plain GPT code has it: no bias, and its eps written into the call."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), None

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.weight.shape, self.weight, self.bias, 1e-5)


class CausalSelfAttention(nn.Module):
    """Reads the width from its input, as plain GPT code does."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.resid_dropout, self.n_head, self.n_embd = nn.Dropout(0.0), heads, dim

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C)))


class PlainMLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.c_fc, self.gelu = nn.Linear(dim, 4 * dim, bias=False), nn.GELU()
        self.c_proj, self.dropout = nn.Linear(4 * dim, dim, bias=False), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class PlainGptBlock(nn.Module):
    def __init__(self, dim: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.ln_1, self.attn = BareLayerNorm(dim), CausalSelfAttention(dim, heads)
        self.ln_2, self.mlp = BareLayerNorm(dim), PlainMLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


def rms_block() -> nn.Module:
    block = TinyBlock(32, 64, 2, True)
    block.attn_norm, block.mlp_norm = RootMeanSquareNorm(32), RootMeanSquareNorm(32)
    return block


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "gated": lambda: TinyBlock(32, 64, 2, True),
    "plain": lambda: TinyBlock(32, 64, 2, False),
    "rms": rms_block,
    "post-norm": PostNormBlock,
    "plain GPT": PlainGptBlock,
}


@pytest.fixture(params=list(BLOCKS))
def block(request: pytest.FixtureRequest) -> nn.Module:
    """One block of each kind in training mode, with norm weights and biases that are not what they start as."""
    torch.manual_seed(3)
    made = BLOCKS[request.param]()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return made.train()


@pytest.fixture
def tiny() -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(1)
        return TinyTransformer()

    return make


@pytest.fixture
def registry() -> Registry:
    """The plugin alone, registered in memory: nothing needs to be installed."""
    manager = PluginManager()
    manager.register(plugin, "jetfire")
    return manager.registry


def tokens(step: int, length: int = 16) -> Tensor:
    return torch.randint(0, 64, (4, length), generator=torch.Generator().manual_seed(step))


@pytest.fixture
def train() -> Callable[..., list[float]]:
    """``train(model, live, optimizer, steps, first=0, micro=1)``: losses of language modelling on fixed batches."""

    def run(
        model: nn.Module,
        live: LiveTransform | None,
        optimizer: torch.optim.Optimizer,
        steps: int,
        first: int = 0,
        micro: int = 1,
    ) -> list[float]:
        losses = []
        for step in range(first, first + steps):
            optimizer.zero_grad()
            for part in range(micro):
                ids = tokens(1000 * step + part)
                loss = model(input_ids=ids, labels=ids).loss
                loss.backward()
            if live is not None:
                live.on_gradients(step)
            optimizer.step()
            if live is not None:
                live.on_step(step + 1)
            losses.append(loss.item())
        return losses

    return run


@pytest.fixture
def start() -> Callable[..., LiveTransform]:
    """``start(model, **options)``: apply, and begin a run."""

    def begin(model: nn.Module, **options: Any) -> LiveTransform:
        live = planish.apply(model, Jetfire(options))
        live.on_train_start(10)
        return live

    return begin
