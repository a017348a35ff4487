"""Sample attention: softmax written out in float32, with every score in memory."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from planish import UnsupportedError
from planish.interfaces import AttentionImpl, AttentionSpec, Support
from torch import Tensor

LARGEST = 2**28
"""Scores that are held in memory at most."""


class SoftmaxAttention(AttentionImpl):
    """Compute all scores, mask them, normalise them."""

    name = "sample-softmax"
    summary = "attention with all scores in memory, in float32"

    def supports(self, spec: AttentionSpec) -> Support:
        if spec.device not in ("cpu", "cuda"):
            return Support(False, f"runs on cpu and cuda, not on {spec.device}")
        if spec.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return Support(False, f"computes in float32, float16 and bfloat16, not in {spec.dtype}")
        if spec.kv_heads < 1 or spec.heads % spec.kv_heads:
            return Support(False, f"{spec.heads} query heads cannot share {spec.kv_heads} key heads evenly")
        if spec.window is not None and spec.window < 1:
            return Support(False, f"a window of {spec.window} keys shows nothing")
        if not 0 <= spec.dropout < 1:
            return Support(False, f"dropout {spec.dropout} is not in [0, 1)")
        scores = spec.batch * spec.heads * spec.q_len * spec.kv_len
        if scores > LARGEST:
            return Support(False, f"{scores} scores do not fit; at most {LARGEST} are held")
        return Support(True)

    def cost(self, spec: AttentionSpec) -> float:
        return 4.0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, spec: AttentionSpec, bias: Tensor | None = None) -> Tensor:
        answer = self.supports(spec)
        if not answer:
            raise UnsupportedError(f"{self.name}: {answer.reason}")
        group = spec.heads // spec.kv_heads
        k, v = (t.float().repeat_interleave(group, dim=1) for t in (k, v))
        scale = 1 / math.sqrt(spec.head_dim) if spec.scale is None else spec.scale
        scores = scale * (q.float() @ k.transpose(-1, -2))
        if bias is not None:
            scores = scores + bias.float()
        scores = scores.masked_fill(~self.visible(spec, q.device), -math.inf)
        blind = scores.isneginf().all(-1, keepdim=True)
        weights = scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)
        if spec.dropout:
            weights = F.dropout(weights, spec.dropout)
        return (weights @ v).to(q.dtype)

    def visible(self, spec: AttentionSpec, device: torch.device) -> Tensor:
        """Return which keys each query sees, bool [q_len, kv_len]."""
        query = torch.arange(spec.q_len, device=device)[:, None] + spec.kv_len - spec.q_len
        key = torch.arange(spec.kv_len, device=device)[None, :]
        visible = torch.ones(spec.q_len, spec.kv_len, dtype=torch.bool, device=device)
        if spec.causal:
            visible = visible & (key <= query)
        if spec.window is not None:
            visible = visible & (key > query - spec.window)
        return visible
