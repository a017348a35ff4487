"""torch's scaled_dot_product_attention, with every feature that an attention problem can ask for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from planish.errors import UnsupportedError
from planish.interfaces.attention import AttentionImpl, AttentionSpec, Support


class SdpaAttention(AttentionImpl):
    """Attention through ``torch.nn.functional.scaled_dot_product_attention``.

    Where the problem is plain (all keys, or square and causal) torch picks among its flash, memory-efficient and math
    kernels; windows, biases and causal problems whose lengths differ go through an additive or boolean mask of
    [q_len, kv_len], which costs memory.
    """

    name = "sdpa"
    summary = "torch's scaled_dot_product_attention, on every device"

    def supports(self, spec: AttentionSpec) -> Support:
        """Say yes to every well-formed problem in a floating-point type on a device that torch finds here."""
        if not spec.dtype.is_floating_point:
            return Support(False, f"dtype {spec.dtype} is not a floating-point type")
        if spec.dtype.itemsize < 2:
            return Support(False, f"torch's attention does not compute in {spec.dtype}; use float16, bfloat16 or more")
        if spec.kv_heads < 1 or spec.heads % spec.kv_heads:
            return Support(False, f"{spec.heads} query heads are no multiple of {spec.kv_heads} key and value heads")
        if spec.window is not None and spec.window < 1:
            return Support(False, f"window is {spec.window}; a query sees at least 1 key")
        if not 0 <= spec.dropout < 1:
            return Support(False, f"dropout is {spec.dropout}; it lies in [0, 1)")
        here = {"cpu", getattr(torch.accelerator.current_accelerator(), "type", "cpu")}
        if spec.device not in here:
            return Support(False, f"there is no device {spec.device!r} here; there is {' and '.join(sorted(here))}")
        return Support(True)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, spec: AttentionSpec, bias: Tensor | None = None) -> Tensor:
        """Compute attention as the interface describes it."""
        support = self.supports(spec)
        if not support:
            raise UnsupportedError(f"sdpa: {support.reason}")
        if (bias is not None) != spec.bias:
            given = "given" if bias is not None else "not given"
            raise UnsupportedError(
                f"sdpa: the spec says bias={spec.bias} and a bias is {given}; describe what you pass"
            )
        if spec.kv_len == 0 or spec.q_len == 0:
            return q.new_zeros(*q.shape[:-1], v.shape[-1])
        square = spec.causal and spec.window is None and bias is None and spec.q_len == spec.kv_len
        mask = None if square else visible(spec, q.device)
        blind = None if mask is None else ~mask.any(-1, keepdim=True)
        if bias is not None:
            added = bias.to(q.dtype)
            if mask is not None:
                added = added.masked_fill(~mask, -torch.inf)
            blind = (added == -torch.inf).all(-1, keepdim=True)
            mask = added.masked_fill(blind, 0.0)
        elif mask is not None and blind is not None:
            mask = mask | blind
        # A row without a visible key would be NaN in some of torch's kernels and not in others. It attends to
        # everything here and is zeroed below, which cuts its gradients as well.
        output = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=spec.dropout,
            is_causal=square,
            scale=spec.scale,
            enable_gqa=spec.heads != spec.kv_heads,
        )
        return output if blind is None else output.masked_fill(blind, 0.0)


def visible(spec: AttentionSpec, device: torch.device | str) -> Tensor | None:
    """Return bool [q_len, kv_len], True where query i sees key j; None where every query sees every key.

    Query i stands at position p = i + kv_len - q_len. Causal bounds keys from above, j <= p; a window of w bounds them
    from below, p - w < j.
    """
    if not spec.causal and spec.window is None:
        return None
    position = torch.arange(spec.q_len, device=device)[:, None] + (spec.kv_len - spec.q_len)
    key = torch.arange(spec.kv_len, device=device)[None, :]
    seen = torch.ones(spec.q_len, spec.kv_len, dtype=torch.bool, device=device)
    if spec.causal:
        seen &= key <= position
    if spec.window is not None:
        seen &= key > position - spec.window
    return seen
