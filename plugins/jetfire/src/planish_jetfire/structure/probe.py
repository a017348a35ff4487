"""Confirms what a block computes, on a small float64 clone whose attention is a stand-in.

Names and shapes say which modules a block has, not how it joins them: a scaled residual, a third norm or branches in
parallel look the same. So the block's own ``forward`` is run once, and compared with each order that is understood.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planish_jetfire.structure.norm import apply_norm
from planish_jetfire.structure.transformer_block import NormKind

_AGREE = 1e-9
_WIDTH, _INNER, _TOKENS = 16, 32, 6

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


@dataclass(frozen=True)
class Wiring:
    """How a block joins its parts: which norm stands in which half, before or after, and the activation."""

    norms: tuple[str, str]
    activation: str
    is_pre_norm: bool


class _Attention(nn.Module):
    """Stands for the attention: a linear map of its first tensor, in the form in which the block expects it."""

    def __init__(self, mix: Tensor, out: nn.Module | None, form: int) -> None:
        super().__init__()
        self.mix, self.out, self.form = mix, out, form

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        mixed = hidden @ self.mix
        if self.out is not None:
            mixed = self.out(mixed)
        return mixed if self.form == 0 else (mixed, *[None] * self.form)


class _Norm(nn.Module):
    def __init__(self, kind: NormKind, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.kind, self.weight, self.bias = kind, weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return apply_norm(x, self.kind, self.weight, self.bias)


@torch.no_grad()
def wiring(
    block: nn.Module,
    *,
    attention: str,
    out: str,
    norms: Mapping[str, NormKind],
    expand: tuple[str, ...],
    contract: str,
) -> Wiring | None:
    """How the block joins its parts, or None if it is none of the ways that are understood.

    Args:
        block: The block; it is not changed, and nothing is drawn from global random generators.
        attention: Name of the module that holds the projections.
        out: Name of the output projection, inside of it or not.
        norms: Name -> kind of the two norms.
        expand, contract: Names of the linears of the feed-forward network.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / shape[0] ** 0.5

    def linear(inputs: int, outputs: int) -> nn.Linear:
        made: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=torch.float64)  # type: ignore
        made.weight.copy_(draw(outputs, inputs) * 2)
        made.bias.copy_(draw(outputs))
        return made

    mix, project = draw(_WIDTH, _WIDTH), linear(_WIDTH, _WIDTH)
    vectors = {name: _Norm(kind, 1 + draw(_WIDTH), draw(_WIDTH)) for name, kind in norms.items()}
    widen = {name: linear(_WIDTH, _INNER) for name in expand}
    narrow = linear(_INNER, _WIDTH)
    hidden = draw(1, _TOKENS, _WIDTH) * 2
    parts: dict[str, nn.Module] = {**vectors, **widen, contract: narrow}
    inside = out.startswith(f"{attention}.")
    if not inside:
        parts[out] = project
    for form in range(3):
        parts[attention] = _Attention(mix, project if inside else None, form)
        found = _run(block, parts, hidden)
        if found is None:
            continue
        for (first, second), activation, is_pre in product(
            (tuple(norms), tuple(norms)[::-1]), ACTIVATIONS, (True, False)
        ):
            act = ACTIVATIONS[activation]
            attend_norm, feed_norm = vectors[first], vectors[second]

            def feed(x: Tensor, act: Any = act) -> Tensor:
                up = widen[expand[-1]](x)
                return narrow(act(up) if len(expand) == 1 else act(widen[expand[0]](x)) * up)

            if is_pre:
                half = hidden + project(attend_norm(hidden) @ mix)
                expected = half + feed(feed_norm(half))
            else:
                half = attend_norm(hidden + project(hidden @ mix))
                expected = feed_norm(half + feed(half))
            if found.shape == expected.shape and float((found - expected).norm() / expected.norm()) < _AGREE:
                return Wiring((first, second), activation, is_pre)
    return None


def _run(block: nn.Module, parts: Mapping[str, nn.Module], hidden: Tensor) -> Tensor | None:
    try:
        clone = _clone(block, "", parts).eval()
        result = clone(hidden, **_missing(block))
    except Exception:  # a forward that needs more than this is not understood
        return None
    if isinstance(result, tuple | list) and result:
        result = result[0]
    return result if isinstance(result, Tensor) else None


def _missing(block: nn.Module) -> dict[str, None]:
    """None for every argument beside the first that has no default."""
    names = list(inspect.signature(block.forward).parameters.values())[1:]
    taken = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: None for p in names if p.kind in taken and p.default is inspect.Parameter.empty}


def _clone(module: nn.Module, path: str, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A clone with ``parts`` in the place of modules, and copies of everything else in float64, without hooks."""
    if path in parts:
        return parts[path]
    clone = module.__class__.__new__(module.__class__)
    fresh = {key: type(value)() for key, value in module.__dict__.items() if "_hooks" in key}
    clone.__dict__.update({**module.__dict__, **fresh})
    for kind in ("_parameters", "_buffers"):
        own = {name: _double(tensor) for name, tensor in module.__dict__[kind].items()}
        clone.__dict__[kind] = own
    clone.__dict__["_modules"] = {
        name: None if child is None else _clone(child, f"{path}.{name}" if path else name, parts)
        for name, child in module._modules.items()
    }
    return clone


def _double(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    plain = copy.copy(tensor.detach()).cpu()
    plain = plain.double() if plain.is_floating_point() else plain
    return nn.Parameter(plain, requires_grad=False) if isinstance(tensor, nn.Parameter) else plain
