"""What an encoded matrix is: tensors that hold it, and ``decode()``, which says exactly what they mean."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor


class Format(ABC):
    """A two-dimensional matrix in another encoding. Immutable; subclasses are frozen dataclasses (``eq=False``).

    A field is a tensor, another ``Format`` (formats nest: ``Sparse24`` whose values are quantized) or plain data.
    A subclass gives ``shape``, ``dtype``, ``decode`` and a classmethod ``encode(dense, ...)``; the rest follows from
    its fields. No gradient flows through a format: encode detaches, and who encodes decides what the gradient is.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """The shape of the decoded matrix."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the decoded matrix."""

    @abstractmethod
    def decode(self) -> Tensor:
        """The dense matrix, exactly: ``[shape[0], shape[1]]`` in ``dtype``. Slow and obviously right."""

    @classmethod
    def encode(cls, dense: Tensor) -> Format:
        """Encode a dense matrix. Subclasses add their own keyword arguments."""
        raise TypeError(f"{cls.__name__} cannot be encoded from a dense matrix alone")

    @classmethod
    def random(cls, rows: int, cols: int, *, dtype: torch.dtype, device: torch.device, seed: int) -> Format:
        """A random member ``[rows, cols]``, for oracle tests and self-tests: by default ``encode`` of normal numbers.

        Raises:
            ValueError: the format has no member of this shape or dtype.
        """
        generator = torch.Generator().manual_seed(seed)
        return cls.encode(torch.randn(rows, cols, generator=generator, dtype=torch.float64).to(device, dtype))

    @property
    def T(self) -> Format:
        """The transpose, without a copy."""
        return Transposed(self)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return next(iter(self.tensors().values())).device

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, each storage region counted once."""
        distinct = {(t.data_ptr(), t.nbytes): t.nbytes for t in self.tensors().values()}
        return sum(distinct.values())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by field name; those of a nested format are named ``field.inner``."""
        found: dict[str, Tensor] = {}
        for name, value in self._fields():
            if isinstance(value, Tensor):
                found[name] = value
            elif isinstance(value, Format):
                found.update({f"{name}.{inner}": tensor for inner, tensor in value.tensors().items()})
        return found

    def apply(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same format with ``function`` applied to every tensor (of nested formats too)."""
        changed: dict[str, Any] = {}
        for name, value in self._fields():
            if isinstance(value, Tensor):
                changed[name] = function(value)
            elif isinstance(value, Format):
                changed[name] = value.apply(function)
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> Self:
        """The same format with its tensors on ``device`` (those already there are shared)."""
        return self.apply(lambda tensor: tensor.to(device))

    def detach(self) -> Self:
        """The same format cut off from autograd, sharing memory."""
        return self.apply(torch.Tensor.detach)

    def _fields(self) -> list[tuple[str, Any]]:
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"{type(self).__name__} must be a dataclass: decorate it with @dataclass(frozen=True)")
        return [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]


#: What a matmul takes: a dense matrix or an encoded one.
Operand = Tensor | Format


@dataclasses.dataclass(frozen=True, eq=False)
class Transposed(Format):
    """The transpose of ``base``: the same tensors, read the other way. ``Transposed(f).T`` is ``f``."""

    base: Format

    @property
    def shape(self) -> torch.Size:
        """The base's shape, swapped."""
        rows, cols = self.base.shape
        return torch.Size((cols, rows))

    @property
    def dtype(self) -> torch.dtype:
        """The base's dtype."""
        return self.base.dtype

    @property
    def T(self) -> Format:
        """The base."""
        return self.base

    def decode(self) -> Tensor:
        """A transposed view of the decoded base."""
        return self.base.decode().t()


def decode(operand: Operand) -> Tensor:
    """The dense matrix of an operand: itself where it is a tensor."""
    return operand if isinstance(operand, Tensor) else operand.decode()
