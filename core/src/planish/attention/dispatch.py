"""Choosing the attention implementation for a problem."""

from __future__ import annotations

from dataclasses import dataclass

from planish.errors import PluginError, UnsupportedError
from planish.interfaces.attention import AttentionImpl, AttentionSpec
from planish.plugins.registry import Registry


@dataclass(frozen=True)
class Choice:
    """How one implementation fared for one problem.

    Attributes:
        name: The implementation.
        chosen: Whether it is the one that runs.
        reason: Why it is chosen, or why it was passed over.
        cost: Expected time relative to torch's own attention; None where it cannot run.
    """

    name: str
    chosen: bool
    reason: str
    cost: float | None = None


class AttentionDispatcher:
    """Picks the cheapest implementation that supports a problem; remembers its picks."""

    def __init__(self, registry: Registry) -> None:
        """Create a dispatcher over the implementations in ``registry``; each is imported at the first problem."""
        self._registry = registry
        self._loaded: dict[str, AttentionImpl | str] | None = None
        self._picked: dict[tuple[AttentionSpec, str | None], AttentionImpl] = {}

    def select(self, spec: AttentionSpec, name: str | None = None) -> AttentionImpl:
        """Return the implementation for ``spec``.

        Args:
            spec: The problem.
            name: An implementation that must be used; None for the cheapest that supports the problem.

        Raises:
            PluginError: There is no implementation of that name.
            UnsupportedError: The named one cannot solve the problem, or none can; the message says why.
        """
        key = (spec, name)
        if key not in self._picked:
            self._picked[key] = self._named(spec, name) if name is not None else self._cheapest(spec)
        return self._picked[key]

    def explain(self, spec: AttentionSpec) -> list[Choice]:
        """Return how each implementation fares for ``spec``: by rising cost, then those that cannot run."""
        able: list[tuple[float, str]] = []
        unable: list[Choice] = []
        for name, found in self._implementations().items():
            if isinstance(found, str):
                unable.append(Choice(name, False, found))
                continue
            support = found.supports(spec)
            if support:
                able.append((found.cost(spec), name))
            else:
                unable.append(Choice(name, False, support.reason))
        able.sort()
        best = able[0] if able else (0.0, "")
        choices = [
            Choice(
                name,
                name == best[1],
                f"expected at {cost:g} times torch's time"
                + ("" if name == best[1] else f"; {best[1]} at {best[0]:g} times"),
                cost,
            )
            for cost, name in able
        ]
        return [*choices, *unable]

    def _cheapest(self, spec: AttentionSpec) -> AttentionImpl:
        choices = self.explain(spec)
        for choice in choices:
            if choice.chosen:
                found = self._implementations()[choice.name]
                if isinstance(found, AttentionImpl):
                    return found
        why = "; ".join(f"{choice.name}: {choice.reason}" for choice in choices) or "none is installed"
        raise UnsupportedError(f"no attention implementation can solve {spec}: {why}")

    def _named(self, spec: AttentionSpec, name: str) -> AttentionImpl:
        self._registry.find(name, "attention")
        found = self._implementations()[name]
        if isinstance(found, str):
            raise PluginError(found)
        support = found.supports(spec)
        if not support:
            raise UnsupportedError(f"attention {name!r}: {support.reason}; choose another, or leave the choice open")
        return found

    def _implementations(self) -> dict[str, AttentionImpl | str]:
        """Return name -> implementation, or why it cannot be loaded: one broken plugin leaves the rest usable."""
        if self._loaded is None:
            self._loaded = {}
            for entry in self._registry.of("attention"):
                try:
                    self._loaded[entry.name] = self._registry.load(entry.name, "attention")()
                except PluginError as error:
                    self._loaded[entry.name] = str(error)
        return self._loaded
