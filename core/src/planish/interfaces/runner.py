"""Runner: what ``planish run`` hands a recipe to."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from planish.config import Config as PluginConfig
from planish.config import validate
from planish.interfaces.plugin import Plugin

if TYPE_CHECKING:
    from planish.interfaces.plan import Plan
    from planish.plugins.registry import Registry
    from planish.recipe.schema import Recipe


@dataclass(frozen=True)
class RunOptions:
    """How a recipe is to be run.

    Attributes:
        baseline: Whether the untransformed model is trained first, on the same data and seed.
        resume: Whether to continue an interrupted run that left its state in the report folder.
        trust_code: Whether the recipe may name Python code by ``module:factory``.
        progress: Whether to show progress bars.
    """

    baseline: bool = True
    resume: bool = False
    trust_code: bool = False
    progress: bool = True


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        folder: The report folder, with ``report.json`` and ``index.html``.
        report: The contents of ``report.json``.
    """

    folder: Path
    report: dict[str, Any] = field(default_factory=dict)


class Runner(Plugin):
    """Trains what a recipe describes and writes the report."""

    interface_version: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]]
    """Schema of the recipe's ``trainer`` section."""
    Data: ClassVar[type[PluginConfig]]
    """Schema of the recipe's ``data`` section."""

    def __init__(self, config: Any = None, **options: Any) -> None:
        """Create the runner from the recipe's ``trainer`` section, which errors name."""
        self.config = validate(self.Config, options if config is None else config, where="trainer")

    def plan(self, recipe: Recipe, registry: Registry, options: RunOptions) -> list[Plan]:
        """Return what each transform of the recipe would do to its model, without training: ``planish run --dry-run``.

        Raises:
            PlanishError: The model, a target or the composition is wrong.
        """
        from planish.recipe import build_model
        from planish.recipe.compose import plan_all

        return plan_all(build_model(recipe.model, registry, trust_code=options.trust_code), recipe.transforms, registry)

    @abstractmethod
    def run(self, recipe: Recipe, registry: Registry, options: RunOptions) -> RunResult:
        """Run the recipe to its end.

        Raises:
            PlanishError: The input is wrong (exit code 2) or the work failed (:class:`planish.WorkError`, exit 1).
        """
