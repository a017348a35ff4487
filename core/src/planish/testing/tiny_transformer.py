"""A small causal transformer in plain torch: the model on which transforms are tried by default."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class TinyOutput:
    """Output of :class:`TinyTransformer`: logits [batch, length, vocab_size], and the loss where labels were given."""

    logits: Tensor
    loss: Tensor | None = None


class TinyAttention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [batch, length, dim] to the same shape."""
        q, k, v = (
            proj(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(-2))
        return output


class GatedMLP(nn.Module):
    """SwiGLU feed-forward network with the projections gate, up and down."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, inner, bias=False)
        self.up_proj = nn.Linear(dim, inner, bias=False)
        self.down_proj = nn.Linear(inner, dim, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., dim] to the same shape."""
        output: Tensor = self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))
        return output


class PlainMLP(nn.Module):
    """Feed-forward network with two projections, biases and GELU between them."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, inner)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(inner, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., dim] to the same shape."""
        output: Tensor = self.fc2(self.act(self.fc1(hidden)))
        return output


class TinyBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, inner: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(dim)
        self.attn = TinyAttention(dim, heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp: nn.Module = GatedMLP(dim, inner) if gated else PlainMLP(dim, inner)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states [batch, length, dim] to the same shape."""
        hidden = hidden + self.attn(self.attn_norm(hidden))
        output: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return output


class TinyTransformer(nn.Module):
    """A causal language model small enough to train in milliseconds.

    Args:
        vocab_size: Number of tokens.
        dim: Width of the hidden state.
        inner: Width inside the feed-forward networks.
        heads: Attention heads.
        layers: Blocks.
        max_length: Longest sequence.
        gated: Whether feed-forward networks are SwiGLU (gate, up, down) rather than two projections with GELU.
        tied_mlp: Whether all blocks share one feed-forward network.
        tied_head: Whether the output projection is the token embedding.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 64,
        dim: int = 32,
        inner: int = 64,
        heads: int = 2,
        layers: int = 2,
        max_length: int = 64,
        gated: bool = True,
        tied_mlp: bool = False,
        tied_head: bool = False,
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, dim)
        self.embed_positions = nn.Embedding(max_length, dim)
        self.layers = nn.ModuleList(TinyBlock(dim, inner, heads, gated) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, vocab_size, bias=False)
        if tied_mlp:
            for block in self.layers:
                block.mlp = self.layers[0].mlp
        if tied_head:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> TinyOutput:
        """Return logits, and the mean next-token cross-entropy where labels are given.

        Args:
            input_ids: int64 [batch, length].
            labels: int64 [batch, length], the tokens themselves; the shift happens inside.
        """
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.embed_tokens(input_ids) + self.embed_positions(positions)
        for block in self.layers:
            hidden = block(hidden)
        logits = self.lm_head(self.norm(hidden))
        if labels is None:
            return TinyOutput(logits)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return TinyOutput(logits, loss)


def token_batches(count: int, *, batch: int = 4, length: int = 16, vocab_size: int = 64) -> list[dict[str, Tensor]]:
    """Return ``count`` batches of token ids, drawn once and for all: ``input_ids`` and ``labels`` [batch, length]."""
    generator = torch.Generator().manual_seed(20)
    drawn = [torch.randint(vocab_size, (batch, length), generator=generator) for _ in range(count)]
    return [{"input_ids": ids, "labels": ids} for ids in drawn]
