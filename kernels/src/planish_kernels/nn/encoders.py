"""Encoders: what turns an operand of a linear layer's matmul into a format, and how several compose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Protocol, runtime_checkable

from torch import Tensor

from planish_kernels.formats.format import Format, Operand, Transposed


@runtime_checkable
class Encoder(Protocol):
    """Encodes one operand. An object with this method; state (masks, packs, scales, a generator) is its own affair.

    Optional members are looked for:

    * ``refresh()``: recompute what is cached; ``LinearEncoders.refresh`` calls it, once for each distinct encoder.
      Under ``torch.compile`` and CUDA graphs ``encode`` must not assign attributes: keep caches in tensors that
      ``refresh`` overwrites in place.
    * ``from_master: bool``: the encoder of a weight wants (or ignores) the parameter itself rather than its copy in
      autocast's dtype, and returns an operand in the compute dtype on its own. Saves a cast for each forward pass.
    * ``is_sparse24(contraction)``: see ``SparseWeightEncoder``; the encoder of a gradient may have it too.

    An encoder that is an ``nn.Module`` follows its layer through ``.to()``, ``.cuda()`` and ``.half()``; it is not a
    submodule, so it adds no keys to the layer's ``state_dict``.
    """

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """Encode a matrix.

        Args:
            tensor: two-dimensional, any strides, detached. It may be a view of a parameter: never write into it.
            contraction: the dimension (0 or 1) of ``tensor`` that the matmul sums over.

        Returns:
            an operand of the same logical shape, except that the contraction dimension may be longer where the
            encoder fills it up with zeros (a group of four tokens, say, when there are 63).
        """
        ...


@runtime_checkable
class SparseWeightEncoder(Encoder, Protocol):
    """An encoder of a weight that can be 2:4, and that tells where to a method after it in a chain.

    Such a method may encode what this one returns, as any other; or ask for weight and mask, and lay the kept entries
    out in its own way: a sparse kernel for another number format reads another layout.
    """

    def is_sparse24(self, contraction: int) -> bool:
        """Whether what ``encode`` would return now keeps two of four along dimension ``contraction``."""
        ...

    def weight_and_mask(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """The weight, and which of its entries are kept.

        Args:
            tensor: as ``encode`` takes it, but of any precision.

        Returns:
            The values ``[out, in]``, of which those that are not kept mean nothing; and packed bits, uint8
            ``[out, ceil(in / 8)]`` as ``pack_mask`` gives them, 2:4 along each dimension that ``is_sparse24`` names.
        """
        ...


def sparse24_along(encoder: Encoder | None, contraction: int) -> bool:
    """Whether the encoder says of itself that its operand is 2:4 along ``contraction`` now; any encoder may."""
    ask = getattr(encoder, "is_sparse24", None)
    return ask is not None and bool(ask(contraction))


@dataclass(frozen=True)
class Chain:
    """Two encoders in a row: ``second`` encodes what ``first`` returned, or the values of that format."""

    first: Encoder
    second: Encoder

    @property
    def from_master(self) -> bool:
        """As the first encoder has it."""
        return takes_master(self.first)

    def encode(self, tensor: Tensor, *, contraction: int) -> Operand:
        """Encode with the first, then its values with the second."""
        return _encode_within(self.first.encode(tensor, contraction=contraction), self.second, contraction)

    def refresh(self) -> None:
        """Refresh both."""
        for encoder in (self.first, self.second):
            _refresh(encoder)


def chain(first: Encoder | None, second: Encoder | None) -> Encoder | None:
    """Both encoders in a row; None (dense) on either side leaves the other."""
    if first is None or second is None:
        return second if first is None else first
    return Chain(first, second)


def _encode_within(operand: Operand, encoder: Encoder, contraction: int) -> Operand:
    """Encode a dense operand, or the dense values at the bottom of a format."""
    if isinstance(operand, Tensor):
        return encoder.encode(operand, contraction=contraction)
    if isinstance(operand, Transposed):
        inner = _encode_within(operand.base, encoder, 1 - contraction)
        return inner.t() if isinstance(inner, Tensor) else inner.T
    values = getattr(operand, "values", None)
    with_values = getattr(operand, "with_values", None)
    if not isinstance(values, Tensor | Format) or with_values is None:
        raise TypeError(
            f"{type(encoder).__name__} cannot encode the values of {type(operand).__name__}: that format does not nest "
            f"(it has no values / with_values). Chain them in the other order, or use a format that nests"
        )
    nested: Format = with_values(_encode_within(values, encoder, contraction))
    return nested


@dataclass(frozen=True)
class Operands:
    """The encoders of one matmul ``left @ right``; None leaves that operand dense."""

    left: Encoder | None = None
    right: Encoder | None = None


@dataclass(frozen=True)
class LinearEncoders:
    """The encoders of a linear layer's three matmuls, for ``input`` [tokens, in], ``weight`` [out, in].

    ============ ==================================== ========================= =========================
    matmul       product                              left (contraction)        right (contraction)
    ============ ==================================== ========================= =========================
    forward      output = input @ weight.T            input (1)                 weight (1)
    input_grad   grad_input = grad_output @ weight    grad_output (1)           weight (0)
    weight_grad  grad_weight = grad_output.T @ input  grad_output (0)           input (0)
    ============ ==================================== ========================= =========================

    The gradient of the weight is straight-through: that of the encoded weight, passed to the dense one unchanged.
    """

    forward: Operands = field(default_factory=Operands)
    input_grad: Operands = field(default_factory=Operands)
    weight_grad: Operands = field(default_factory=Operands)

    def then(self, other: LinearEncoders) -> LinearEncoders:
        """These encoders followed by another method's, operand by operand (see ``chain``)."""
        paired = {}
        for spec in fields(self):
            mine, theirs = getattr(self, spec.name), getattr(other, spec.name)
            paired[spec.name] = Operands(chain(mine.left, theirs.left), chain(mine.right, theirs.right))
        return LinearEncoders(**paired)

    def __iter__(self) -> Iterator[Encoder]:
        """Every distinct encoder once (chains as one)."""
        seen: set[int] = set()
        for spec in fields(self):
            operands: Operands = getattr(self, spec.name)
            for encoder in (operands.left, operands.right):
                if encoder is not None and id(encoder) not in seen:
                    seen.add(id(encoder))
                    yield encoder

    def leaves(self) -> Iterator[Encoder]:
        """Every distinct encoder once, chains taken apart."""
        seen: set[int] = set()
        pending = list(self)[::-1]
        while pending:
            encoder = pending.pop()
            if isinstance(encoder, Chain):
                pending += [encoder.second, encoder.first]
            elif id(encoder) not in seen:
                seen.add(id(encoder))
                yield encoder

    def refresh(self) -> None:
        """Ask every distinct encoder that caches something to recompute it."""
        for encoder in self.leaves():
            _refresh(encoder)


def takes_master(encoder: Encoder | None) -> bool:
    """Whether the encoder takes a weight before autocast's cast."""
    return encoder is not None and bool(getattr(encoder, "from_master", False))


def _refresh(encoder: Encoder) -> None:
    refresh = getattr(encoder, "refresh", None)
    if refresh is not None:
        refresh()
