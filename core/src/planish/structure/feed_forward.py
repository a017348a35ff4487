"""Finds the feed-forward networks of a transformer by their structure: linears that widen, then narrow.

Class names say little (every library has its own MLP), so the finder looks at shapes and at the order in which a
module defines its linears, and at the names of attention projections, whose shapes can look alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from planish.structure.linear import features

_ATTENTION_CHILD = re.compile(
    r"^(q|k|v|qkv|wqkv|wq|wk|wv|query|key|value|c_attn|q_attn|in_proj|query_key_value|qkv_proj|[qkv]_proj|[qkv]_lin|"
    r"to_[qkv]|to_qkv|to_kv|[qkv]_[ab]_proj|kv_a_proj_with_mqa)$",
    re.IGNORECASE,
)
_GATED_NAMES = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), ("wi_0", "wi_1", "wo"), ("w1", "v1", "w2"))
_PLAIN_NAMES = (
    ("fc1", "fc2"),
    ("c_fc", "c_proj"),
    ("wi", "wo"),
    ("lin1", "lin2"),
    ("linear1", "linear2"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("up_proj", "down_proj"),
    ("fc_in", "fc_out"),
    ("w1", "w2"),
    ("gate_up_proj", "down_proj"),
)


@dataclass(frozen=True)
class FeedForward:
    """One feed-forward network.

    Attributes:
        parent: Qualified name of the module that holds it.
        expand: Names of the linears that widen: one, or for a gated one (gate, up).
        contract: Name of the linear that narrows.
    """

    parent: str
    expand: tuple[str, ...]
    contract: str

    @property
    def gated(self) -> bool:
        """Whether it has a gate and an up projection of their own."""
        return len(self.expand) == 2


def find_feed_forwards(model: nn.Module) -> list[FeedForward]:
    """Every feed-forward network of the model, in its order.

    Recognised are gated (gate, up, down: Llama, Mistral, T5 1.1), fused gated (gate_up, down: Phi-3), plain (GPT-2,
    BERT, ViT, OPT, ``nn.TransformerEncoderLayer``, ``nn.Sequential``) ones, and experts that are modules.
    """
    found: list[FeedForward] = []
    for name, module in model.named_modules():
        linears = {child: size for child, inner in module.named_children() if (size := features(inner)) is not None}
        nested = _intermediate_output(module)
        if nested is not None:
            found.append(FeedForward(name, (_join(name, nested[0]),), _join(name, nested[1])))
        elif linears and not any(_ATTENTION_CHILD.match(child) for child, _ in module.named_children()):
            match = _by_name(linears) or _by_shape(linears)
            if match is not None:
                expand, contract = match
                found.append(FeedForward(name, tuple(_join(name, e) for e in expand), _join(name, contract)))
    return found


def _join(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent else child


def _by_name(linears: Mapping[str, tuple[int, int]]) -> tuple[tuple[str, ...], str] | None:
    """Known names, whatever the width, as long as the shapes chain."""
    for gate, up, down in _GATED_NAMES:
        if gate in linears and up in linears and down in linears:
            if linears[gate] == linears[up] and linears[gate][1] == linears[down][0]:
                return (gate, up), down
            return None
    for up, down in _PLAIN_NAMES:
        if up in linears and down in linears:
            wide, narrow = linears[up], linears[down]
            if wide[1] in (narrow[0], 2 * narrow[0]):
                return (up,), down
            return None
    return None


def _by_shape(linears: Mapping[str, tuple[int, int]]) -> tuple[tuple[str, ...], str] | None:
    """One linear narrows what one widened, or two widened alike, before it (a bottleneck goes the other way round)."""
    names = list(linears)
    pairs = []
    for down in names:
        wide, out = linears[down]
        ups = [up for up in names if up != down and linears[up][1] == wide and linears[up][0] < wide and out < wide]
        fused = [up for up in names if up != down and linears[up] == (out, 2 * wide) and out < wide]
        if 1 <= len(ups) <= 2 and len({linears[up] for up in ups}) == 1 and names.index(ups[0]) < names.index(down):
            pairs.append((tuple(ups), down))
        elif not ups and len(fused) == 1 and names.index(fused[0]) < names.index(down):
            pairs.append(((fused[0],), down))
    return pairs[0] if len(pairs) == 1 else None


def _intermediate_output(module: nn.Module) -> tuple[str, str] | None:
    """BERT's and ViT's layout: ``intermediate.dense`` widens, ``output.dense`` narrows."""
    children = dict(module.named_children())
    up, down = (
        dict(children[key].named_children()).get("dense") if key in children else None
        for key in ("intermediate", "output")
    )
    if up is None or down is None:
        return None
    wide, narrow = features(up), features(down)
    if wide is None or narrow is None or wide[1] != narrow[0]:
        return None
    return "intermediate.dense", "output.dense"
