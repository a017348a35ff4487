"""Finds the transformer blocks of a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from planish.structure import FeedForward, features, find_feed_forwards
from torch import nn

from planish_jetfire.structure.norm import norm_kind, vector_width
from planish_jetfire.structure.probe import wiring
from planish_jetfire.structure.transformer_block import NormKind, TransformerBlock

_QUERY_KEY_VALUE = re.compile(
    r"(^|\.)(q|k|v|qkv|wqkv|wq|wk|wv|query|key|value|c_attn|query_key_value|[qkv]_proj|qkv_proj|[qkv]_lin|to_[qkv]|"
    r"to_qkv|in_proj)$",
    re.IGNORECASE,
)
_OF_PROBABILITIES = re.compile(r"(attn_drop|attention_drop|attention_probs|attn_dropout|probs)", re.IGNORECASE)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class NotTaken:
    """A module that holds an attention and a feed-forward network, and why it cannot compute as one."""

    name: str
    reason: str


class _Reason(Exception):
    """Why a block is not taken."""


def find_blocks(model: nn.Module) -> list[TransformerBlock | NotTaken]:
    """Every module that holds an attention and a feed-forward network: a block, or why it is none."""
    networks = find_feed_forwards(model)
    found: dict[str, TransformerBlock | NotTaken] = {}
    for network in networks:
        name = _holder(model, network)
        if name is None or name in found:
            continue
        try:
            found[name] = _block(model, name, network, networks)
        except _Reason as reason:
            found[name] = NotTaken(name, str(reason))
    return list(found.values())


def watched(module: nn.Module) -> bool:
    """Whether somebody listens to what goes in and out of a module."""
    return any(module.__dict__[hooks] for hooks in _HOOKS)


def _holder(model: nn.Module, network: FeedForward) -> str | None:
    """The smallest module around a feed-forward network that has other linears too; None if there is none."""
    own = {*network.expand, network.contract}
    path = network.parent
    while True:
        module = model.get_submodule(path)
        if any(name not in own for name in _linears(module, path)):
            return path
        if not path:
            return None
        path = path.rpartition(".")[0]


def _linears(module: nn.Module, prefix: str = "") -> dict[str, tuple[int, int]]:
    sizes = {name: features(inner) for name, inner in module.named_modules() if name}
    return {_join(prefix, name): size for name, size in sizes.items() if size is not None}


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _block(model: nn.Module, name: str, network: FeedForward, networks: list[FeedForward]) -> TransformerBlock:
    block = model.get_submodule(name)
    prefix = f"{name}." if name else ""
    if sum(_within(other, name) for other in networks) != 1:
        raise _Reason("it holds several feed-forward networks")
    if "forward" in block.__dict__:
        raise _Reason("its forward was replaced on the instance")
    expand = tuple(part.removeprefix(prefix) for part in network.expand)
    contract = network.contract.removeprefix(prefix)
    sizes = _linears(block)
    width, inner = sizes[contract][1], sizes[contract][0]
    if any(sizes[part] != (width, inner) for part in expand):
        raise _Reason("its feed-forward network holds gate and up in one linear, or changes the width")
    projections, out = _attention(sizes, {*expand, contract}, width)
    attention = _common_parent(projections)
    if not attention:
        raise _Reason("its attention is no module of its own")
    norms = _norms(block, attention, width)
    _refuse_dropout(block, attention, out)
    _refuse_other_parameters(block, attention, {*norms, *sizes})
    for part in (*sizes, *norms):
        if watched(block.get_submodule(part)):
            raise _Reason(f"{part} has hooks, which would see stand-ins")
    joined = wiring(block, attention=attention, out=out, norms=norms, expand=expand, contract=contract)
    if joined is None:
        raise _Reason(
            "its forward joins its parts in another way than x + attention(norm(x)), then + feed_forward(norm(x)), "
            "with GELU or SiLU"
        )
    kinds = (norms[joined.norms[0]], norms[joined.norms[1]])
    return TransformerBlock(
        name, width, projections, out, joined.norms, kinds, expand, contract, joined.activation, joined.is_pre_norm
    )


def _within(network: FeedForward, name: str) -> bool:
    return not name or network.parent == name or network.parent.startswith(f"{name}.")


def _attention(sizes: dict[str, tuple[int, int]], feed_forward: set[str], width: int) -> tuple[tuple[str, ...], str]:
    """The projections of queries, keys and values, and the output projection, which stands behind them."""
    others = [name for name in sizes if name not in feed_forward]
    if len(others) not in (2, 4):
        raise _Reason(
            f"beside its feed-forward network it has {len(others)} linears, expected queries, keys, values (or one for "
            f"all) and an output projection"
        )
    outs = [name for name in others if not _QUERY_KEY_VALUE.search(name)] or others
    out = outs[-1]
    projections = tuple(name for name in others if name != out)
    if any(sizes[name][0] != width for name in projections) or sizes[out][1] != width:
        raise _Reason(f"the linears of its attention do not all go from or to the width {width} of the hidden state")
    return projections, out


def _common_parent(names: tuple[str, ...]) -> str:
    parents = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*parents):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def _norms(block: nn.Module, attention: str, width: int) -> dict[str, NormKind]:
    found: dict[str, NormKind] = {}
    for name, module in block.named_modules():
        if name == attention or name.startswith(f"{attention}.") or vector_width(module) != width:
            continue
        kind = norm_kind(module)
        if kind is None:
            raise _Reason(f"{name} is neither a LayerNorm nor an RMSNorm")
        found[name] = kind
    if len(found) != 2:
        raise _Reason(f"it has {len(found)} norms of its width, expected two")
    return found


def _refuse_dropout(block: nn.Module, attention: str, out: str) -> None:
    inside = f"{attention}."
    for name, module in block.named_modules():
        rate = getattr(module, "p", 0.0) if isinstance(module, nn.modules.dropout._DropoutNd) else 0.0
        rate = rate or (getattr(module, "drop_prob", 0.0) or 0.0)
        if not rate:
            continue
        # In front of the output projection dropout is the attention's own affair.
        if name.startswith(inside) and (not out.startswith(inside) or _OF_PROBABILITIES.search(name)):
            continue
        raise _Reason(f"{name} drops out {rate:g} of a branch; set it to 0 to have the block compute as one")


def _refuse_other_parameters(block: nn.Module, attention: str, known: set[str]) -> None:
    for name, _ in block.named_parameters():
        owner = name.rpartition(".")[0]
        if owner not in known and owner != attention and not owner.startswith(f"{attention}."):
            raise _Reason(f"it has the parameter {name}, whose part in it is not known")
