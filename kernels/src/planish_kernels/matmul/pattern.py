"""What a kernel of the table takes on one side, in terms of types alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from planish_kernels.formats.format import Format, Operand, Transposed


@dataclass(frozen=True)
class Pattern:
    """An operand's type: ``Pattern(Tensor)``, ``Pattern(Sparse24)``, ``Pattern(Sparse24, transposed=True)``, …

    Attributes:
        format: ``torch.Tensor`` for a dense operand (of any strides), a ``Format`` class, or None for anything.
        transposed: whether the operand is ``Transposed(format)``; dense operands have strides instead.
        values: for a format that nests, the type of its ``values``; None is a dense tensor.
    """

    format: type | None = None
    transposed: bool = False
    values: type[Format] | None = None

    def matches(self, operand: Operand) -> bool:
        """Whether the operand is of this type (exactly: a subclass of a format is another format)."""
        if self.format is None:
            return True
        if self.format is Tensor:
            return isinstance(operand, Tensor)
        if self.transposed:
            if not isinstance(operand, Transposed):
                return False
            operand = operand.base
        if type(operand) is not self.format:
            return False
        values = getattr(operand, "values", None)
        if self.values is None:
            return not isinstance(values, Format)
        return type(values) is self.values

    def __str__(self) -> str:
        if self.format is None:
            return "any"
        if self.format is Tensor:
            return "dense"
        inner = f"[{self.values.__name__}]" if self.values is not None else ""
        return f"{self.format.__name__}{inner}{'.T' if self.transposed else ''}"


ANY = Pattern()
DENSE = Pattern(Tensor)


def pattern_of(operand: Operand) -> Pattern:
    """The pattern that matches this operand."""
    if isinstance(operand, Tensor):
        return DENSE
    transposed = isinstance(operand, Transposed)
    inner = operand.base if isinstance(operand, Transposed) else operand
    values = getattr(inner, "values", None)
    return Pattern(type(inner), transposed, type(values) if isinstance(values, Format) else None)
