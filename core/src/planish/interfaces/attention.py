"""AttentionImpl: one implementation of scaled dot-product attention, and what it can do."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from planish.config import Config as PluginConfig
from planish.interfaces.plugin import Plugin


class Support(NamedTuple):
    """Whether something can be done here, and if not, why not. Truthy if it can."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        """Return ``ok``."""
        return self.ok


@dataclass(frozen=True)
class AttentionSpec:
    """One attention problem: softmax(scale · q kᵀ + bias) v.

    Attributes:
        batch: Number of sequences.
        heads: Query heads.
        kv_heads: Key and value heads; ``heads`` is a multiple of it (grouped-query attention).
        q_len: Query length.
        kv_len: Key and value length.
        head_dim: Size of a head's query and key.
        value_dim: Size of a head's value; None for ``head_dim``.
        dtype: Of q, k, v and the output.
        device: Device type, such as ``"cuda"``.
        causal: Whether query i sees keys up to i + kv_len - q_len only.
        window: Number of most recent keys each query sees, or None for all.
        dropout: Probability of dropping an attention weight.
        bias: Whether an additive bias is given, broadcastable to [batch, heads, q_len, kv_len].
        needs_grad: Whether gradients are wanted.
        scale: Factor on the scores; None for 1 / sqrt(head_dim).
    """

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    dtype: torch.dtype
    device: str
    value_dim: int | None = None
    causal: bool = False
    window: int | None = None
    dropout: float = 0.0
    bias: bool = False
    needs_grad: bool = False
    scale: float | None = None

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, **more: Any) -> AttentionSpec:
        """Return the spec of tensors q [batch, heads, q_len, head_dim], k and v [batch, kv_heads, kv_len, …]."""
        return cls(
            batch=q.shape[0],
            heads=q.shape[1],
            kv_heads=k.shape[1],
            q_len=q.shape[2],
            kv_len=k.shape[2],
            head_dim=q.shape[3],
            value_dim=v.shape[3] if v.shape[3] != q.shape[3] else None,
            dtype=q.dtype,
            device=q.device.type,
            causal=causal,
            needs_grad=torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)),
            **more,
        )


class AttentionImpl(Plugin):
    """One way to compute attention. Stateless: everything it needs is in the spec and the tensors."""

    interface_version: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]] = PluginConfig

    @abstractmethod
    def supports(self, spec: AttentionSpec) -> Support:
        """Say whether the implementation can solve ``spec`` on this machine; if not, why not. Never raises."""

    def cost(self, spec: AttentionSpec) -> float:
        """Return the expected time for ``spec`` relative to torch's own attention (1.0); the lowest is chosen."""
        return 1.0

    @abstractmethod
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, spec: AttentionSpec, bias: Tensor | None = None) -> Tensor:
        """Compute attention.

        Args:
            q: Queries [batch, heads, q_len, head_dim].
            k: Keys [batch, kv_heads, kv_len, head_dim].
            v: Values [batch, kv_heads, kv_len, value_dim].
            spec: The problem, as :meth:`AttentionSpec.of` describes it.
            bias: Added to the scaled scores, broadcastable to [batch, heads, q_len, kv_len].

        Returns:
            [batch, heads, q_len, value_dim], in q's dtype. A query that sees no key gets zeros.

        Raises:
            UnsupportedError: :meth:`supports` says no; the message is its reason.
        """
