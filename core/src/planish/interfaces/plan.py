"""What a transform would do to a model, module by module, and why not to the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Claim:
    """One aspect of a module that a transform changes.

    Attributes:
        aspect: What is changed: ``"weight.mask"``, ``"matmul.forward"``, ``"attention"``, ``"sequence"``, …
        exclusive: Whether no other transform may change the same aspect of the same module.
        before: Aspects of the same module that only a later transform may change: a mask belongs on the weight before
            its operands are brought into another number format.
    """

    aspect: str
    exclusive: bool = True
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedModule:
    """One line of a plan.

    Attributes:
        name: Qualified name of the module in the model; empty for the model itself.
        touched: Whether the transform would change the module.
        reason: Why it is touched, or why it is skipped, as a clause a person understands.
        claims: What would be changed; empty for a skipped module.
        details: What else a reader should know, such as ``{"forward": "cusparselt"}``: which kernel each matmul gets.
    """

    name: str
    touched: bool
    reason: str
    claims: tuple[Claim, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A transform's plan for one model. Printing it prints a table; it holds no tensors.

    Attributes:
        use: Name of the transform.
        config: The transform's options, as JSON-compatible values.
        modules: One entry for each module that was looked at, in the model's order.
        notes: Remarks on the whole, such as "2:4 matmuls do not pay at this size on this machine".
    """

    use: str
    config: Mapping[str, Any]
    modules: tuple[PlannedModule, ...]
    notes: tuple[str, ...] = ()

    @property
    def touched(self) -> tuple[PlannedModule, ...]:
        """The modules that would be changed."""
        return tuple(m for m in self.modules if m.touched)

    @property
    def skipped(self) -> tuple[PlannedModule, ...]:
        """The modules that were looked at and left alone, each with its reason."""
        return tuple(m for m in self.modules if not m.touched)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-compatible values; :meth:`from_dict` reads them back."""
        return {
            "use": self.use,
            "config": dict(self.config),
            "notes": list(self.notes),
            "modules": [
                {
                    "name": m.name,
                    "touched": m.touched,
                    "reason": m.reason,
                    "claims": [_claim_to_dict(claim) for claim in m.claims],
                    "details": dict(m.details),
                }
                for m in self.modules
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan that :meth:`to_dict` described."""
        modules = tuple(
            PlannedModule(
                name=m["name"],
                touched=m["touched"],
                reason=m["reason"],
                claims=tuple(Claim(c["aspect"], c["exclusive"], tuple(c.get("before", ()))) for c in m["claims"]),
                details=dict(m["details"]),
            )
            for m in values["modules"]
        )
        return cls(values["use"], dict(values["config"]), modules, tuple(values["notes"]))

    def table(self) -> Table:
        """Return the plan as a rich table: touched modules first, then the skipped ones with their reasons."""
        table = Table(title=f"{self.use}: {len(self.touched)} modules changed, {len(self.skipped)} left alone")
        columns = sorted({key for m in self.touched for key in m.details})
        table.add_column("module", overflow="fold")
        table.add_column("")
        table.add_column("why", overflow="fold")
        for column in columns:
            table.add_column(column)
        for module in (*self.touched, *self.skipped):
            mark = "[green]change[/]" if module.touched else "[dim]skip[/]"
            table.add_row(module.name or "(model)", mark, module.reason, *(module.details.get(c, "") for c in columns))
        return table

    def __str__(self) -> str:
        """Return the table as text, with the notes below it."""
        console = Console(width=140, record=True, file=StringIO())
        console.print(self.table())
        for note in self.notes:
            console.print(f"note: {note}", markup=False, highlight=False)
        return console.export_text().rstrip()


def _claim_to_dict(claim: Claim) -> dict[str, Any]:
    values: dict[str, Any] = {"aspect": claim.aspect, "exclusive": claim.exclusive}
    return {**values, "before": list(claim.before)} if claim.before else values


def conflicts(first: Plan, second: Plan) -> Iterable[tuple[str, str]]:
    """Yield ``(module name, aspect)`` for which both plans hold a claim and at least one holds it exclusively."""
    held = {m.name: {c.aspect: c.exclusive for c in m.claims} for m in first.touched}
    for module in second.touched:
        for claim in module.claims:
            other = held.get(module.name, {}).get(claim.aspect)
            if other is not None and (other or claim.exclusive):
                yield module.name, claim.aspect


def misordered(first: Plan, second: Plan) -> Iterable[tuple[str, str, str]]:
    """Yield ``(module name, aspect of second, aspect of first)`` where ``second`` has to come before ``first``."""
    held = {m.name: {c.aspect for c in m.claims} for m in first.touched}
    for module in second.touched:
        for claim in module.claims:
            for aspect in claim.before:
                if aspect in held.get(module.name, ()):
                    yield module.name, claim.aspect, aspect
