"""Which linears 2:4 training takes, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from planish import targets as targeting
from planish.structure import features, find_feed_forwards, place_of
from planish_kernels.nn import EncodedLinear
from torch import nn
from torch.nn.utils import parametrize

from planish_pretrain24.state import CHILD

MULTIPLE = 4
"""Groups of 2:4 sparsity, and blocks of a transposable mask, are four weights wide."""

_PLACES = {
    "attention": "an attention projection; the method sparsifies feed-forward linears",
    "head": "an output head; the method sparsifies feed-forward linears",
    "other": "not part of a feed-forward network (no pair of linears that widens and narrows around it)",
}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Candidate:
    """A module that was looked at: taken where ``accepted``; ``reason`` is a clause either way."""

    name: str
    module: nn.Module
    accepted: bool
    reason: str


def candidates(model: nn.Module, patterns: Sequence[str] | None, *, min_features: int) -> Iterator[Candidate]:
    """Look at every linear, convolution and embedding of the model, or at every module that the patterns match.

    Feed-forward linears are taken; a linear that a pattern names exactly (without a wildcard) is taken whatever it is.

    Raises:
        CompositionError: A pattern matches no module.
    """
    matched = targeting.match(model, patterns) if patterns is not None else None
    named = {p for p in patterns or () if not set(p) & set("*?[")}
    ffn = {}
    for network in find_feed_forwards(model):
        kind = "gated " if network.gated else ""
        for name in network.expand:
            ffn[name] = f"widens the {kind}feed-forward network {network.parent or '(model)'!s}"
        ffn[network.contract] = f"narrows the {kind}feed-forward network {network.parent or '(model)'!s}"
    tied = targeting.tied_parameters(model)
    for name, module in model.named_modules() if matched is None else matched.items():
        if not name or _is_state(name):
            continue
        is_linear = features(module) is not None
        if not (is_linear or isinstance(module, (*_CONVOLUTIONS, nn.Embedding))):
            if matched is not None and next(module.children(), None) is None and _has_weight(module):
                yield Candidate(name, module, False, f"a {type(module).__name__}; 2:4 sparsity is for linear layers")
            continue
        reason = refusal(name, module, tied, min_features)
        if reason is None and name not in ffn and name not in named:
            reason = _PLACES[place_of(name)]
        yield Candidate(name, module, reason is None, reason or ffn.get(name) or "named exactly in targets")


def _is_state(name: str) -> bool:
    return name.rpartition(".")[2] == CHILD


def _has_weight(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def refusal(name: str, module: nn.Module, tied: Mapping[str, list[str]], min_features: int) -> str | None:
    """Why a module cannot be taken, whatever its place in the model; None if it can.

    Args:
        name: Its qualified name.
        module: The module.
        tied: Parameter name -> the other names of the same tensor (:func:`planish.targets.tied_parameters`).
        min_features: Least number of in and of out features.
    """
    if features(module) is None and not isinstance(module, (*_CONVOLUTIONS, nn.Embedding)):
        return f"a {type(module).__name__}; 2:4 sparsity is for linear layers"
    if isinstance(module, _CONVOLUTIONS):
        return f"a convolution ({type(module).__name__}); 2:4 sparsity is for linear layers"
    if isinstance(module, nn.Embedding):
        return "an embedding; 2:4 sparsity is for linear layers"
    if parametrize.is_parametrized(module) or module._parameters.get("weight") is None:
        return "its weight is parametrised already; remove the parametrisation first"
    if CHILD in module._modules:
        return "2:4 training is applied to it already"
    if isinstance(module, EncodedLinear):
        return "another transform encodes its matmuls already; put pretrain24 before that transform"
    if isinstance(module, nn.Linear) and type(module).forward is not nn.Linear.forward:
        return f"a {type(module).__name__}, which computes something else than a linear layer"
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance; remove that wrapper first"
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    others = tied.get(f"{name}.weight")
    if others:
        return f"its weight is tied to {others[0]}"
    if not weight.is_floating_point():
        return f"its weight is {weight.dtype}; 2:4 training needs a floating-point weight"
    if weight.is_meta:
        return "its weight is on the meta device; materialise the model first"
    if weight.dim() != 2:
        return f"its weight has shape {list(weight.shape)}; it is sharded or flattened already"
    size = features(module)
    assert size is not None
    for what, value in zip(("in_features", "out_features"), size, strict=True):
        if value % MULTIPLE:
            return f"{what} {value} is not a multiple of {MULTIPLE}"
        if value < min_features:
            return f"{what} {value} is too small (min_features is {min_features})"
    return None
