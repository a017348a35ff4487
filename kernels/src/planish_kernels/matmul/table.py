"""The table of matmul kernels: each names the pair of formats that it takes, and says what it cannot do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from planish_kernels.formats.format import Operand
from planish_kernels.matmul.pattern import Pattern
from planish_kernels.runtime.capability import BACKENDS
from planish_kernels.runtime.support import YES, Support


def _always() -> Support:
    return YES


def _everything(a: Operand, b: Operand) -> Support:
    return YES


@dataclass(frozen=True)
class MatmulKernel:
    """One way to compute ``a @ b``.

    Attributes:
        name: unique; by convention ``<format>/<backend>`` with a suffix where one backend has several.
        backend: what executes it, of ``planish_kernels.runtime.capability.BACKENDS``.
        left, right: the types of ``a`` and ``b`` that it takes.
        run: ``run(a, b, out_dtype)`` with ``a`` [m, k] and ``b`` [k, n] gives a tensor [m, n]; ``out_dtype`` None means
            the operands' dtype, and where the kernel cannot write another one it converts. Callable from
            ``torch.compile`` without a graph break: a custom op, or plain torch.
        available: whether it exists in this process at all.
        supports: whether it can do this pair (shapes, dtypes, device); asked only where the types match.
        measured: a note of where it pays, for ``planish kernels``.
    """

    name: str
    backend: str
    left: Pattern
    right: Pattern
    run: Callable[[Operand, Operand, torch.dtype | None], Tensor]
    available: Callable[[], Support] = _always
    supports: Callable[[Operand, Operand], Support] = _everything
    measured: str = ""

    def takes(self, a: Operand, b: Operand) -> bool:
        """Whether the types of both operands match."""
        return self.left.matches(a) and self.right.matches(b)


_KERNELS: list[MatmulKernel] = []


def register_matmul(kernel: MatmulKernel) -> MatmulKernel:
    """Add a kernel to the table; ``matmul_kernels`` says in which order they are tried.

    Raises:
        ValueError: the name is taken, or the backend unknown.
    """
    if kernel.backend not in BACKENDS:
        raise ValueError(f"{kernel.name}: {kernel.backend!r} is no backend: use one of {', '.join(BACKENDS)}")
    if any(other.name == kernel.name for other in _KERNELS):
        raise ValueError(f"matmul kernel {kernel.name!r} is registered already: choose another name")
    _KERNELS.append(kernel)
    return kernel


def unregister_matmul(name: str) -> None:
    """Take a kernel out of the table (for tests that register their own)."""
    _KERNELS[:] = [kernel for kernel in _KERNELS if kernel.name != name]


def matmul_kernels() -> tuple[MatmulKernel, ...]:
    """Every kernel in the order in which they are tried.

    Those for a certain pair of types come first, by backend (cusparselt, cuda, triton, cpu, reference) and then as they
    were registered; those that take anything come last, and the last of all is the reference.
    """
    general = [kernel for kernel in _KERNELS if kernel.left.format is None or kernel.right.format is None]
    special = [kernel for kernel in _KERNELS if kernel not in general]
    order = {backend: rank for rank, backend in enumerate(("cusparselt", "cuda", "triton", "cpu", "reference"))}
    return (*sorted(special, key=lambda kernel: order[kernel.backend]), *general)
