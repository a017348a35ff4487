"""A transformer block that computes as one, quantized, around the model's own attention.

In training a block is two autograd functions with the attention between them, so that quantized tensors never cross
autograd: :class:`~planish_jetfire.flow.projections.Projections` (norm; queries, keys, values), and
:class:`~planish_jetfire.flow.pre_norm.PreNormRest` (output projection, sum, norm, feed-forward network, sum) or
:class:`~planish_jetfire.flow.post_norm.PostNormRest`.

How they come to stand inside a model whose code nobody changes:

* Block, norms and linears stay the objects that they are, parameters and ``state_dict`` keys included. Their class is
  replaced by a subclass of the same name that answers differently in training, so ``isinstance``, class-name policies
  (sharding, checkpointing, output recording), hooks and pickling go on as before.
* The block's own ``forward`` still runs, as a switchboard: it hands masks, positions and caches to its attention
  however it does that, and the attention's own code computes. The hidden state that goes through it is a stand-in of
  one NaN that takes no memory (``[..., 1]``), so that its sums and activations cost nothing; the attention sees one of
  the full shape. The projections answer with what ``Projections`` computed, the output projection keeps what it is
  given: see :class:`~planish_jetfire.flow.handover.Handover`. The switchboard's result is thrown away, and the block's
  output put in its place.
* Everything is plain tensor code without global state: ``torch.compile(fullgraph=True)`` traces it (and drops the
  switchboard as dead code), activation checkpointing runs the block again as a whole.
* In evaluation, before ``start_step``, and for a layer that is called from elsewhere, the original ``forward`` runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import torch
from planish.errors import UnsupportedError
from torch import Tensor, nn

from planish_jetfire.flow.block_state import BlockState
from planish_jetfire.flow.handover import Handover
from planish_jetfire.flow.post_norm import PostNormRest
from planish_jetfire.flow.pre_norm import PreNormRest
from planish_jetfire.flow.projections import Projections
from planish_jetfire.state import CHILD
from planish_jetfire.structure.find import watched


class _Swapped:
    """Base of the subclasses that take the place of a module's class; remembers it, and pickles by it."""

    original: ClassVar[type[nn.Module]]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _make_again, (_kind_of(type(self)), self.original), self.__dict__


class _FlowNorm(_Swapped):
    handover: Handover
    role: int

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.handover.is_open:
            return self.handover.meet(self.role, args[0] if args else next(iter(kwargs.values())))
        return super().forward(*args, **kwargs)  # type: ignore[misc]


class _FlowBlock(_Swapped):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        assert isinstance(self, nn.Module)
        state = self._modules[CHILD]
        assert isinstance(state, BlockState)
        if not state.quantizes or _is_watched(self, state):
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        return run(self, state, super().forward, args, kwargs)  # type: ignore[misc]


_KINDS: dict[str, type[_Swapped]] = {"block": _FlowBlock, "norm": _FlowNorm}


def swap(module: nn.Module, kind: str) -> None:
    """Let a block (``"block"``) or norm (``"norm"``) answer as part of a flow; nothing in it changes but its class."""
    module.__class__ = _subclass(kind, type(module))  # type: ignore[arg-type]


def swap_back(module: nn.Module) -> None:
    """Give the module its own class again."""
    if isinstance(module, _Swapped):
        module.__class__ = module.original  # type: ignore[assignment]


@cache
def _subclass(kind: str, original: type[nn.Module]) -> type[nn.Module]:
    names = {"original": original, "__module__": original.__module__, "__qualname__": original.__qualname__}
    return type(original.__name__, (_KINDS[kind], original), {**names, "__doc__": original.__doc__})


def _kind_of(cls: type) -> str:
    return next(kind for kind, base in _KINDS.items() if issubclass(cls, base))


def _make_again(kind: str, original: type[nn.Module]) -> nn.Module:
    cls = _subclass(kind, original)  # type: ignore[arg-type]
    return cls.__new__(cls)


def run(
    block: nn.Module, state: BlockState, switchboard: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The block's output for these arguments, in the form in which its own ``forward`` returns it.

    Raises:
        UnsupportedError: The attention does something else with its projections than was understood.
    """
    structure = state.structure
    hidden: Tensor = args[0] if args else kwargs[state.hidden_name]
    if hidden.shape[-1] != structure.features:
        raise ValueError(
            f"the hidden state has shape {tuple(hidden.shape)}, expected [..., features={structure.features}]"
        )
    device = hidden.device.type
    has_autocast = torch.is_autocast_enabled(device) and hidden.dtype is not torch.float64
    dtype = torch.get_autocast_dtype(device) if has_autocast else hidden.dtype
    for codes, _ in state.all_codes:
        codes.begin_forward()
    leading, tokens = hidden.shape[:-1], hidden.reshape(-1, structure.features)
    norms = [_vectors(block, name) for name in structure.norms]
    before = norms[0] if structure.is_pre_norm else (None, None)
    projected: tuple[Tensor, ...] = Projections.apply(  # type: ignore[no-untyped-call]
        tokens, state, dtype, *before, *_parameters(block, structure.projections)
    )
    nothing = hidden.detach().new_full((1,), float("nan"))
    seen, passing = nothing.expand(hidden.shape), nothing.expand(*leading, 1)
    stand_in = passing if structure.is_pre_norm else seen
    handover = state.handover
    handover.open(seen, tuple(one.view(*leading, one.shape[-1]) for one in projected))
    try:
        if args:
            returned = switchboard(stand_in, *args[1:], **kwargs)
        else:
            returned = switchboard(**{**kwargs, state.hidden_name: stand_in})
    finally:
        attended = handover.close()
    if attended is None:
        raise UnsupportedError(
            f"jetfire: the attention of {structure.name or 'the block'} did not call its output projection "
            f"{structure.out}, so the block cannot compute as one; apply jetfire with flow='linear'"
        )
    attended = attended.reshape(-1, attended.shape[-1])
    rest = _parameters(block, (structure.out, *structure.expand, structure.contract))
    if structure.is_pre_norm:
        output = PreNormRest.apply(attended, tokens, state, *norms[1], *rest)  # type: ignore[no-untyped-call]
    else:
        # Autocast computes norms in float32, and a post-norm block ends with one.
        result = torch.float32 if has_autocast else hidden.dtype
        output = PostNormRest.apply(  # type: ignore[no-untyped-call]
            attended, tokens, state, result, *norms[0], *norms[1], *rest
        )
    return _in_place_of(returned, output.view(hidden.shape))


def _parameters(block: nn.Module, names: tuple[str, ...]) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for name in names:
        found += _vectors(block, name)
    return found


def _vectors(block: nn.Module, name: str) -> tuple[Tensor | None, Tensor | None]:
    own = block.get_submodule(name)._parameters
    return own.get("weight"), own.get("bias")


def _in_place_of(returned: Any, output: Tensor) -> Any:
    """What the switchboard returned, with the output where it had the stand-in."""
    if isinstance(returned, Tensor):
        return output
    if isinstance(returned, tuple | list) and returned and isinstance(returned[0], Tensor):
        return type(returned)((output, *returned[1:]))
    raise UnsupportedError(
        f"jetfire: a block returned a {type(returned).__name__}, expected its output or a tuple that begins with it; "
        "apply jetfire with flow='linear'"
    )


def _is_watched(block: nn.Module, state: BlockState) -> bool:
    structure = state.structure
    for name in (*structure.norms, *structure.linears):
        if watched(block.get_submodule(name)):
            _warn_of_hooks(structure.qualified(name))
            return True
    return False


_WARNED: set[str] = set()


def _warn_of_hooks(name: str) -> None:
    if torch.compiler.is_compiling() or name in _WARNED:
        return
    _WARNED.add(name)
    warnings.warn(
        f"jetfire: {name} has hooks, which would see stand-ins; its block computes layer by layer, with quantized "
        "matmuls alone, while they are there",
        stacklevel=2,
    )
