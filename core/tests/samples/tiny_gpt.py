"""Sample language model: a small GPT with a key-value cache and greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from planish.config import Config as PluginConfig
from planish.interfaces import LanguageModel
from pydantic import Field
from torch import Tensor, nn

Cache = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer, [batch, heads, seen, head_dim]."""


@dataclass
class GPTOutput:
    """Logits [batch, length, vocab_size], and what else was asked for."""

    logits: Tensor
    loss: Tensor | None = None
    past_key_values: Cache | None = None


class Block(nn.Module):
    """Pre-norm attention and feed-forward network."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, visible: Tensor, past: tuple[Tensor, Tensor] | None):
        q, k, v = self.qkv(self.attn_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.fc2(F.gelu(self.fc1(self.mlp_norm(x)))), (k, v)


class GPT(nn.Module):
    """A causal language model with learned positions."""

    def __init__(self, vocab_size: int, dim: int, layers: int, heads: int, max_length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(max_length, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab_size, bias=False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
    ) -> GPTOutput:
        seen = 0 if past_key_values is None else past_key_values[0][0].shape[2]
        length = input_ids.shape[1]
        query = torch.arange(seen, seen + length, device=input_ids.device)
        key = torch.arange(seen + length, device=input_ids.device)
        visible = self.visible(query, key, attention_mask)
        x = self.tokens(input_ids) + self.positions(query)
        cache = []
        for layer, block in enumerate(self.blocks):
            x, kept = block(x, visible, None if past_key_values is None else past_key_values[layer])
            cache.append(kept)
        logits = self.head(self.norm(x))
        loss = None
        if labels is not None:
            loss = self.loss(logits, labels)
        return GPTOutput(logits, loss, tuple(cache) if use_cache else None)

    def visible(self, query: Tensor, key: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return which keys each query sees, bool broadcastable to [batch, 1, queries, keys]."""
        causal = key[None, :] <= query[:, None]
        if attention_mask is None:
            return causal[None, None]
        own = key[None, :] == query[:, None]  # a padded query still sees itself: no empty softmax
        return (causal & attention_mask.bool()[:, None, None, :]) | own

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean next-token cross-entropy."""
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)

    @torch.no_grad()
    def generate(self, input_ids: Tensor, max_new_tokens: int) -> Tensor:
        """Append the most likely token, ``max_new_tokens`` times."""
        output = self(input_ids, use_cache=True)
        for _ in range(max_new_tokens):
            token = output.logits[:, -1].argmax(-1, keepdim=True)
            input_ids = torch.cat([input_ids, token], dim=1)
            output = self(token, past_key_values=output.past_key_values, use_cache=True)
        return input_ids


class TinyGPT(LanguageModel):
    """Builds :class:`GPT`."""

    name = "sample-gpt"
    summary = "a small GPT with learned positions"
    module = GPT

    class Config(PluginConfig):
        """Hyper-parameters."""

        vocab_size: int = Field(64, ge=2, description="number of tokens")
        dim: int = Field(32, ge=1, description="width of the hidden state")
        layers: int = Field(2, ge=1, description="number of blocks")
        heads: int = Field(2, ge=1, description="attention heads; divides dim")
        max_length: int = Field(64, ge=1, description="longest sequence in tokens")

    def build(self) -> nn.Module:
        return self.module(**self.config.model_dump())
