"""``matmul(a, b)``: the first kernel of the table that takes the pair, or the one that was asked for."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from planish_kernels.formats.format import Format, Operand
from planish_kernels.matmul.pattern import pattern_of
from planish_kernels.matmul.table import MatmulKernel, matmul_kernels
from planish_kernels.runtime.capability import forced_backend, interpreting
from planish_kernels.runtime.op import FallbackWarning, KernelUnavailable
from planish_kernels.runtime.support import Support, no
from planish_kernels.runtime.tracing import constant_while_tracing


class MatmulExplanation(NamedTuple):
    """What became of one kernel of the table: chosen, or the reason why not."""

    kernel: str
    backend: str
    chosen: bool
    reason: str


def matmul(a: Operand, b: Operand, *, impl: str = "auto", out_dtype: torch.dtype | None = None) -> Tensor:
    """The product ``a @ b`` of two matrices, each dense or in any format.

    Args:
        a: ``[m, k]``. b: ``[k, n]``. Of one dtype, on one device.
        impl: ``"auto"`` takes the first kernel of the table that supports the pair; else the name of a kernel, or of a
            backend, which must be able to.
        out_dtype: the dtype of the product; default that of the operands. Dense products and the reference round once,
            to ``out_dtype``; a kernel whose hardware writes the operands' dtype alone rounds to that first.

    Returns:
        dense ``[m, n]``. A product of two dense tensors is differentiable; no gradient flows into a format.

    Raises:
        ValueError: the shapes, dtypes or devices do not fit each other, or ``impl`` names nothing.
        KernelUnavailable: the kernel or backend named by ``impl`` cannot do this pair.
    """
    _check_pair(a, b)
    return _choose(a, b, impl).run(a, b, out_dtype)


def explain_matmul(a: Operand, b: Operand, *, impl: str = "auto") -> list[MatmulExplanation]:
    """For every kernel of the table: whether ``matmul(a, b)`` would run it, and if not, why. Runs nothing."""
    _check_pair(a, b)
    automatic, candidates = _candidates(impl)
    rows = []
    found = False
    for kernel in matmul_kernels():
        if kernel not in candidates:
            rows.append(MatmulExplanation(kernel.name, kernel.backend, False, f"{impl} was asked for"))
            continue
        support = _supports(kernel, a, b, automatic)
        reason = support.reason or ("a faster kernel was chosen" if found else "the first that takes this pair")
        rows.append(MatmulExplanation(kernel.name, kernel.backend, support.ok and not found, reason))
        found = found or support.ok
    return rows


def _check_pair(a: Operand, b: Operand) -> None:
    for name, operand in (("a", a), ("b", b)):
        if not isinstance(operand, Tensor | Format):
            raise TypeError(f"{name} is a {type(operand).__name__}, matmul takes a Tensor or a Format")
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ValueError(f"a has shape {tuple(a.shape)}, b has {tuple(b.shape)}: matmul takes two matrices")
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"a is {tuple(a.shape)}, b is {tuple(b.shape)}: a's columns must be as many as b's rows")
    if a.dtype != b.dtype:
        raise ValueError(f"a is {a.dtype}, b is {b.dtype}: convert one of them")
    if a.device != b.device:
        raise ValueError(f"a is on {a.device}, b is on {b.device}: move one of them")


def _candidates(impl: str) -> tuple[bool, list[MatmulKernel]]:
    """Whether the choice is automatic, and the kernels among which to choose."""
    kernels = matmul_kernels()
    if impl == "auto":
        forced = forced_backend()
        if forced is None:
            return True, list(kernels)
        # A forced backend has no kernel for most pairs: those go to the reference.
        return False, [kernel for kernel in kernels if kernel.backend in (forced, "reference")]
    named = [kernel for kernel in kernels if impl in (kernel.name, kernel.backend)]
    if not named:
        names = ", ".join(sorted({kernel.name for kernel in kernels} | {kernel.backend for kernel in kernels}))
        raise ValueError(f"impl={impl!r} names no matmul kernel and no backend: use 'auto' or one of {names}")
    return False, named


def _supports(kernel: MatmulKernel, a: Operand, b: Operand, automatic: bool) -> Support:
    if not kernel.takes(a, b):
        took = f"{kernel.left} @ {kernel.right}"
        return no(f"it takes {took}, not {pattern_of(a)} @ {pattern_of(b)}", worth_warning=False)
    available = kernel.available()
    if not available:
        return available._replace(worth_warning=False)
    if automatic and kernel.backend == "triton" and interpreting():
        return no("the interpreter is for tests: it runs only when asked for by name", worth_warning=False)
    return kernel.supports(a, b)


def _choose(a: Operand, b: Operand, impl: str) -> MatmulKernel:
    automatic, candidates = _candidates(impl)
    declined: list[tuple[MatmulKernel, Support]] = []
    for kernel in candidates:
        # Types first: only a kernel of the pair's own types is worth a word when it declines.
        if not kernel.takes(a, b):
            continue
        support = _supports(kernel, a, b, automatic)
        if support.ok:
            for passed_over, refusal in declined:
                if refusal.worth_warning:
                    _warn_once(passed_over.name, kernel.name, "" if torch.compiler.is_compiling() else refusal.reason)
            return kernel
        declined.append((kernel, support))
    reasons = "; ".join(f"{kernel.name}: {support.reason}" for kernel, support in declined)
    raise KernelUnavailable("matmul", impl, reasons or f"it takes no {pattern_of(a)} @ {pattern_of(b)}")


_WARNED: set[tuple[str, str]] = set()


@constant_while_tracing
def _warn_once(declined: str, taken: str, reason: str) -> None:
    if (declined, reason) in _WARNED:
        return
    _WARNED.add((declined, reason))
    why = f" ({reason})" if reason else " (explain_matmul says why)"
    warnings.warn(f"matmul: {declined} declined{why}; running {taken!r} instead", FallbackWarning, stacklevel=4)
