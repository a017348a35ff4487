"""One operator, several backends: choose the fastest that can do the work, and say why the others were passed over.

An operator folder declares its implementations from the fastest to the reference::

    scale = Op("scale", "multiply by two")

    @scale.implement("triton", available=triton_available, supports=lambda x: triton_runs_on(x.device))
    def _(x):
        from planish_kernels.scale.triton import launch   # Triton is imported when it is first needed
        return launch(x)

    @scale.implement("reference")
    def _(x):
        return scale_reference(x)

``scale.dispatch(impl, x)`` belongs *inside* the ``torch.library.custom_op``, where ``torch.compile`` does not look.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from planish_kernels.runtime.capability import BACKENDS, forced_backend, interpreting, triton_available
from planish_kernels.runtime.support import YES, Support, no

Function = TypeVar("Function", bound=Callable[..., Any])


class KernelUnavailable(RuntimeError):
    """A backend that was asked for by name cannot do the work. Carries ``op``, ``backend`` and ``reason``."""

    def __init__(self, op: str, backend: str, reason: str) -> None:
        self.op, self.backend, self.reason = op, backend, reason
        super().__init__(f"{op}: backend {backend!r} cannot run this: {reason}. impl='auto' picks one that can")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.op, self.backend, self.reason)


class FallbackWarning(UserWarning):
    """A faster backend exists on this machine and declined this call for a reason that the caller can change."""


class Explanation(NamedTuple):
    """What became of one backend: chosen, or the reason why not."""

    backend: str
    chosen: bool
    reason: str


@dataclass(frozen=True)
class Implementation:
    """One backend of an operator: ``available()`` asks the machine, ``supports(*args)`` looks at one call."""

    backend: str
    run: Callable[..., Any]
    available: Callable[[], Support]
    supports: Callable[..., Support]


def _always(*_: Any, **__: Any) -> Support:
    return YES


class Op:
    """An operator with several implementations, in order of preference (fastest first, the reference last).

    Creating one registers it, so that ``planish kernels`` can list it; two of one name are an error.
    """

    name: str
    summary: str

    def __init__(self, name: str, summary: str) -> None:
        if name in _OPS:
            raise ValueError(f"operator {name!r} is already registered ({_OPS[name].summary}): choose another name")
        self.name = name
        self.summary = summary
        self._implementations: dict[str, Implementation] = {}
        self._warned: set[tuple[str, str]] = set()
        _OPS[name] = self

    def __repr__(self) -> str:
        return f"Op({self.name!r}, backends={list(self._implementations)})"

    def implement(
        self,
        backend: str,
        supports: Callable[..., Support] | None = None,
        available: Callable[[], Support] | None = None,
    ) -> Callable[[Function], Function]:
        """Decorate the function that runs ``backend``. The order of declaration is the order of preference.

        Args:
            backend: one of ``planish_kernels.runtime.capability.BACKENDS``.
            supports: called with the operator's arguments; whether this backend can do this call.
            available: whether this backend exists in this process at all. The default asks for Triton where the
                backend is ``"triton"``, and is yes elsewhere.
        """
        if backend not in BACKENDS:
            raise ValueError(f"{self.name}: {backend!r} is no backend: use one of {', '.join(BACKENDS)}")
        if backend in self._implementations:
            raise ValueError(f"{self.name}: backend {backend!r} is implemented already")
        if "reference" in self._implementations:
            raise ValueError(f"{self.name}: declare {backend!r} before the reference, which comes last")
        if backend == "reference" and supports is not None:
            raise ValueError(f"{self.name}: the reference supports every valid input, it takes no 'supports'")
        if available is None:
            available = triton_available if backend == "triton" else _always

        def register(function: Function) -> Function:
            self._implementations[backend] = Implementation(backend, function, available, supports or _always)
            return function

        return register

    @property
    def backends(self) -> tuple[str, ...]:
        """The implemented backends, in order of preference."""
        return tuple(self._implementations)

    def availability(self) -> dict[str, Support]:
        """For each backend, whether it can run in this process at all."""
        return {backend: implementation.available() for backend, implementation in self._implementations.items()}

    def dispatch(self, impl: str, *args: Any, **kwargs: Any) -> Any:
        """Run one implementation on the arguments.

        Args:
            impl: ``"auto"`` takes the first implementation that is available and supports the arguments (and honours
                ``PLANISH_BACKEND``); any other value names the backend.

        Raises:
            KernelUnavailable: the named backend is not implemented for this operator, not available or declines.
            ValueError: ``impl`` names no backend.
        """
        requested = self._requested(impl)
        if requested is not None:
            return self._named(requested, *args, **kwargs).run(*args, **kwargs)
        declined: list[tuple[str, Support]] = []
        for implementation in self._implementations.values():
            support = self._automatic_support(implementation, *args, **kwargs)
            if support:
                for backend, refusal in declined:
                    self._warn(backend, refusal, implementation.backend)
                return implementation.run(*args, **kwargs)
            declined.append((implementation.backend, support))
        raise KernelUnavailable(self.name, "auto", self._refusals(declined))

    def chosen(self, *args: Any, impl: str = "auto", **kwargs: Any) -> str:
        """The backend that ``dispatch`` would run for these arguments. Raises as ``dispatch`` does."""
        requested = self._requested(impl)
        if requested is not None:
            return self._named(requested, *args, **kwargs).backend
        declined: list[tuple[str, Support]] = []
        for implementation in self._implementations.values():
            support = self._automatic_support(implementation, *args, **kwargs)
            if support:
                return implementation.backend
            declined.append((implementation.backend, support))
        raise KernelUnavailable(self.name, "auto", self._refusals(declined))

    def explain(self, *args: Any, impl: str = "auto", **kwargs: Any) -> list[Explanation]:
        """For every backend: whether ``dispatch(impl, *args)`` would run it, and if not, why. Runs nothing."""
        requested = self._requested(impl)
        rows: list[Explanation] = []
        found = False
        for implementation in self._implementations.values():
            backend = implementation.backend
            if requested is not None:
                asked = backend == requested
                support = self._support(implementation, *args, **kwargs)
                reason = ("asked for by name" if support else support.reason) if asked else f"{requested} was asked for"
                rows.append(Explanation(backend, asked and support.ok, reason))
                continue
            support = self._automatic_support(implementation, *args, **kwargs)
            reason = support.reason or ("a faster backend was chosen" if found else "the first that can")
            rows.append(Explanation(backend, support.ok and not found, reason))
            found = found or support.ok
        return rows

    def _requested(self, impl: str) -> str | None:
        """The backend asked for by name: by the caller, else by the environment; None is automatic choice."""
        if impl != "auto":
            if impl not in BACKENDS:
                raise ValueError(f"{self.name}: impl={impl!r} names no backend: use 'auto' or one of {self.backends}")
            return impl
        forced = forced_backend()
        if forced is None or forced in self._implementations:
            return forced
        return "reference" if "reference" in self._implementations else None

    def _named(self, backend: str, *args: Any, **kwargs: Any) -> Implementation:
        implementation = self._implementations.get(backend)
        if implementation is None:
            raise KernelUnavailable(self.name, backend, f"it is implemented for {', '.join(self.backends)} only")
        support = self._support(implementation, *args, **kwargs)
        if not support:
            raise KernelUnavailable(self.name, backend, support.reason)
        return implementation

    @staticmethod
    def _support(implementation: Implementation, *args: Any, **kwargs: Any) -> Support:
        return implementation.available() and implementation.supports(*args, **kwargs)

    def _automatic_support(self, implementation: Implementation, *args: Any, **kwargs: Any) -> Support:
        available = implementation.available()
        if not available:
            # What the machine lacks is listed by `planish kernels`, and is no news at every first call.
            return available._replace(worth_warning=False)
        if implementation.backend == "triton" and interpreting():
            return no("the interpreter is for tests: it runs only when asked for by name", worth_warning=False)
        return implementation.supports(*args, **kwargs)

    def _warn(self, backend: str, refusal: Support, taken: str) -> None:
        if not refusal.worth_warning or (backend, refusal.reason) in self._warned:
            return
        self._warned.add((backend, refusal.reason))
        message = f"{self.name}: {backend} declined ({refusal.reason}); running {taken} instead"
        warnings.warn(message, FallbackWarning, stacklevel=4)

    @staticmethod
    def _refusals(declined: list[tuple[str, Support]]) -> str:
        return "; ".join(f"{backend}: {support.reason}" for backend, support in declined) or "nothing is implemented"


_OPS: dict[str, Op] = {}


def ops() -> Mapping[str, Op]:
    """Every registered operator by name. Operators register when their module is imported; see ``load_ops``."""
    return MappingProxyType(_OPS)


def load_ops() -> Mapping[str, Op]:
    """Import every operator folder of this package (``planish_kernels/<name>/op.py``) and return ``ops()``.

    Light: an operator's module imports torch alone, its kernels are imported when they are first run.
    """
    package = importlib.import_module("planish_kernels")
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{module.name}.op"
        if module.ispkg and module.name != "runtime" and importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    return ops()
