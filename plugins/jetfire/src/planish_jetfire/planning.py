"""Which linears are quantized, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from planish import targets as targeting
from planish.structure import features, find_feed_forwards, place_of
from planish_kernels.nn import EncodedLinear
from torch import nn
from torch.nn.utils import parametrize

from planish_jetfire.state import CHILD

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NOT_CHOSEN = {
    "head": "an output head, which stays in full precision; name it exactly in targets to have it quantized",
    "other": "part of neither an attention nor a feed-forward network; name it in targets to have it quantized",
}


@dataclass(frozen=True)
class Candidate:
    """A module that was looked at: taken where ``accepted``; ``reason`` is a clause either way."""

    name: str
    module: nn.Module
    accepted: bool
    reason: str


def candidates(model: nn.Module, patterns: Sequence[str] | None, *, min_features: int) -> Iterator[Candidate]:
    """Look at every linear, convolution and embedding of the model, or at every module that the patterns match.

    Without patterns the linears of attention and feed-forward networks are taken. With them every linear that they
    match, except output heads, which must be named exactly (without a wildcard).

    Raises:
        CompositionError: A pattern matches no module.
    """
    matched = targeting.match(model, patterns) if patterns is not None else None
    named = {p for p in patterns or () if not set(p) & set("*?[")}
    ffn = {}
    for network in find_feed_forwards(model):
        for name in (*network.expand, network.contract):
            ffn[name] = f"part of the feed-forward network {network.parent or '(model)'}"
    tied = targeting.tied_parameters(model)
    read_by_attention = _read_by_attention(model)
    for name, module in model.named_modules() if matched is None else matched.items():
        if not name or name.rpartition(".")[2] == CHILD:
            continue
        if features(module) is None and not isinstance(module, (*_CONVOLUTIONS, nn.Embedding)):
            if matched is not None and next(module.children(), None) is None and _has_weight(module):
                yield Candidate(name, module, False, f"a {type(module).__name__}; jetfire quantizes linear layers")
            continue
        reason = refusal(name, module, tied, min_features)
        if reason is None and name in read_by_attention:
            reason = "nn.MultiheadAttention reads its weight itself, and never calls it"
        if reason is not None:
            yield Candidate(name, module, False, reason)
            continue
        place = place_of(name)
        if name in named:
            yield Candidate(name, module, True, "named exactly in targets")
        elif name in ffn:
            yield Candidate(name, module, True, ffn[name])
        elif place == "attention":
            yield Candidate(name, module, True, "an attention projection")
        elif place == "other" and patterns is not None:
            yield Candidate(name, module, True, "matched by targets")
        else:
            yield Candidate(name, module, False, _NOT_CHOSEN[place])


def _read_by_attention(model: nn.Module) -> set[str]:
    return {
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
        for child, _ in module.named_children()
    }


def _has_weight(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def refusal(name: str, module: nn.Module, tied: Mapping[str, list[str]], min_features: int) -> str | None:
    """Why a module cannot be quantized, whatever its place in the model; None if it can.

    Args:
        name: Its qualified name.
        module: The module.
        tied: Parameter name -> the other names of the same tensor (:func:`planish.targets.tied_parameters`).
        min_features: Least number of in and of out features.
    """
    kind = type(module).__name__
    if isinstance(module, _CONVOLUTIONS):
        return f"a convolution ({kind}); jetfire quantizes linear layers"
    if isinstance(module, nn.Embedding):
        return "an embedding; jetfire quantizes linear layers"
    size = features(module)
    if size is None:
        return f"a {kind}; jetfire quantizes linear layers"
    if parametrize.is_parametrized(module) or module._parameters.get("weight") is None:
        return "its weight is parametrised; remove the parametrisation first"
    if CHILD in module._modules:
        return "jetfire is applied to it already"
    if isinstance(module, nn.Linear) and type(module).forward not in (nn.Linear.forward, EncodedLinear.forward):
        return f"a {kind}, which computes something else than a linear layer"
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance; remove that wrapper first"
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    others = tied.get(f"{name}.weight" if name else "weight")
    if others:
        return f"its weight is tied to {others[0]}"
    if not weight.is_floating_point():
        return f"its weight is {weight.dtype}; jetfire needs a floating-point master weight"
    if weight.is_meta:
        return "its weight is on the meta device; materialise the model first"
    if weight.dim() != 2:
        return f"its weight has shape {list(weight.shape)}; it is sharded or flattened already"
    for what, value in zip(("in_features", "out_features"), size, strict=True):
        if value < min_features:
            return f"{what} {value} is too small (min_features is {min_features})"
    return None
