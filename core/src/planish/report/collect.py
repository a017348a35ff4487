"""Collecting a report while a run goes on."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planish.atomic import write_text
from planish.environment import commit, hardware, versions
from planish.interfaces.plan import Plan
from planish.report.page import render
from planish.report.schema import KernelUse, ModuleBytes, Report, Series, Status, Variant, read_report

if TYPE_CHECKING:
    from torch import nn

    from planish.recipe.schema import Recipe

REPORT = "report.json"
PAGE = "index.html"


class ReportBuilder:
    """Collects one run's figures and writes them, as often as wanted, as ``report.json`` and ``index.html``::

        report = ReportBuilder(folder, recipe)
        report.variant("baseline")
        report.log(step, loss=2.31, step_ms=18.4)  # and other metrics, under their own names
        report.summary(val_loss=2.25, tokens_per_s=41_000)
        report.write(status="finished")

    All methods but :meth:`write` concern the variant that :meth:`variant` named last.

    Attributes:
        folder: Where the report goes.
        report: What has been collected.
    """

    def __init__(self, folder: str | Path, recipe: Recipe | Mapping[str, Any], *, title: str | None = None) -> None:
        """Begin a report.

        Args:
            folder: Where it goes; created at the first :meth:`write`.
            recipe: The resolved recipe.
            title: Headline of the page; the folder's name if None.
        """
        self.folder = Path(folder)
        values = dict(recipe) if isinstance(recipe, Mapping) else recipe.model_dump(mode="json", exclude_none=True)
        self.report = Report(
            title=title or self.folder.resolve().name,
            created=_now(),
            updated=_now(),
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            commit=commit(),
            recipe=values,
            hardware=hardware(),
            versions=versions(),
        )
        self._current: Variant | None = None

    @classmethod
    def reopen(cls, folder: str | Path, recipe: Recipe | Mapping[str, Any]) -> ReportBuilder:
        """Continue the report that ``folder`` holds, or begin one where there is none.

        Call :meth:`rewind` next: an interrupted run may have reported steps that it must do again.

        Raises:
            DataError: There is a report and it is damaged.
        """
        builder = cls(folder, recipe)
        path = Path(folder) / REPORT
        if path.exists():
            old = read_report(path)
            builder.report.created = old.created
            builder.report.variants = old.variants
        return builder

    def variant(self, name: str, title: str | None = None) -> ReportBuilder:
        """Turn to a variant, such as ``"baseline"`` or ``"composed"``; it is added if it is new."""
        if name not in self.report.variants:
            self.report.variants[name] = Variant(name=name, title=title or name)
        self._current = self.report.variants[name]
        if title is not None:
            self._current.title = title
        return self

    def log(self, step: int, metrics: Mapping[str, float] | None = None, **more: float) -> None:
        """Record metrics after ``step`` optimizer steps.

        The page knows ``loss``, ``val_loss`` (both in nats a token), ``step_ms`` and ``flip_rate``; every other name
        gets a chart of its own, shared by the variants that report it.
        """
        series = self._variant.series
        for name, value in {**(metrics or {}), **more}.items():
            series.setdefault(name, Series()).put(step, float(value))

    def rewind(self, step: int) -> None:
        """Forget what was logged after ``step``."""
        for series in self._variant.series.values():
            series.cut(step)

    def summary(self, **figures: Any) -> None:
        """Set figures of :class:`~planish.report.schema.Summary`; other names are kept and listed as they are."""
        summary = self._variant.summary
        for name, value in figures.items():
            setattr(summary, name, value)

    def plans(self, plans: Iterable[Plan]) -> None:
        """Set the plans that were carried out, in order."""
        self._variant.plans = [plan.to_dict() for plan in plans]

    def kernels(self, uses: Iterable[KernelUse]) -> None:
        """Set which kernel each operation ran on, and why a faster one did not."""
        self._variant.kernels = list(uses)

    def modules(self, model: nn.Module) -> None:
        """Set what each module holds in bytes, and the number of parameters."""
        seen: set[int] = set()
        rows: list[ModuleBytes] = []
        count = 0
        for name, module in model.named_modules():
            sizes = [0, 0]
            for place, tensors in enumerate((module.parameters(recurse=False), module.buffers(recurse=False))):
                for tensor in tensors:
                    if id(tensor) not in seen:
                        seen.add(id(tensor))
                        sizes[place] += tensor.numel() * tensor.element_size()
                        count += tensor.numel() if place == 0 else 0
            if any(sizes):
                rows.append(ModuleBytes(name=name, kind=type(module).__name__, parameters=sizes[0], buffers=sizes[1]))
        self._variant.modules = rows
        self._variant.summary.parameters = count

    def note(self, text: str) -> None:
        """Add a remark; one that was made before is not repeated."""
        if text not in self._variant.notes:
            self._variant.notes.append(text)

    def write(self, status: Status = "running", detail: str = "", *, page: bool = True) -> Path:
        """Write ``report.json`` and ``index.html``, each as a whole or not at all.

        Without the extra ``planish[report]`` there is no page, and a warning says so.

        Args:
            status: How the run stands.
            detail: Why it is not finished, in a sentence.
            page: Whether to draw the page as well, which takes some tenths of a second.

        Returns:
            The path of ``report.json``.

        Raises:
            WorkError: The folder cannot be written, or the disk is full.
        """
        self.report.status, self.report.detail, self.report.updated = status, detail, _now()
        path = self.folder / REPORT
        write_text(path, self.report.model_dump_json(indent=1, exclude_none=True))
        if not page:
            return path
        try:
            html = render(self.report)
        except ImportError as error:
            warnings.warn(
                f"no {PAGE} beside {path}: {error.name} is not installed; run: pip install 'planish[report]'",
                stacklevel=2,
            )
        else:
            write_text(self.folder / PAGE, html)
        return path

    @property
    def _variant(self) -> Variant:
        if self._current is None:
            raise RuntimeError("ReportBuilder.variant(name) must be called first")
        return self._current


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
