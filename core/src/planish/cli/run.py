"""``planish run``: check a recipe as a whole, then hand it to its runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli.output import print_json, print_table
from planish.cli.session import Json, session
from planish.errors import ConfigError, DataError, PlanishError

if TYPE_CHECKING:
    from planish.interfaces import Plan, Runner, RunResult
    from planish.plugins.registry import Registry
    from planish.recipe.schema import Recipe


def run(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="A recipe: a YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe, such as trainer.max_steps=50."),
    ] = None,
    no_baseline: Annotated[bool, typer.Option("--no-baseline", help="Do not train the untransformed model.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let the recipe call module:factory.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, show the plan and the recipe; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a baseline and the composed model of a recipe, and write a report.

    Example: planish run examples/quickstart.yaml

    Example: planish run examples/quickstart.yaml trainer.max_steps=50 transforms.0.config.decay=2e-5

    Example: planish run examples/quickstart.yaml --dry-run
    """
    registry = session(context).registry
    from planish.interfaces import RunOptions
    from planish.recipe import read_recipe

    resolved = read_recipe(recipe, overrides or ())
    runner = check(recipe, resolved, registry, trust_code)
    options = RunOptions(baseline=not no_baseline, resume=resume, trust_code=trust_code, progress=not as_json)
    if dry_run:
        _show_plans(resolved, runner.plan(resolved, registry, options), as_json)
        return
    result = runner.run(resolved, registry, options)
    if as_json:
        print_json({"folder": str(result.folder), "report": result.report})
    else:
        _show_result(result)


def check(path: Path, recipe: Recipe, registry: Registry, trust_code: bool) -> Runner:
    """Check every section of a recipe, without a model or data, and return its runner.

    Raises:
        PlanishError: What is wrong, one line for each problem in any section, each with the file and the field.
    """
    from planish.config import validate
    from planish.recipe.compose import check_transforms

    problems: list[PlanishError] = []

    def attempt(check: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        try:
            return check(*arguments, **keywords)
        except PlanishError as error:
            problems.append(error)

    def load_runner() -> type[Runner]:
        try:
            loaded: type[Runner] = registry.load(recipe.runner, "runner")
        except PlanishError as error:
            raise type(error)(f"runner: {error}") from error
        return loaded

    factory = recipe.model.factory
    if factory is not None and not trust_code:
        problems.append(
            ConfigError(f"model.factory: {factory!r} would run Python code; add --trust-code if you trust it")
        )
    for position, transform in enumerate(recipe.transforms):
        attempt(check_transforms, [transform], registry, first=position)
    cls = attempt(load_runner)
    runner: Runner | None = None
    if cls is not None:
        attempt(validate, cls.Data, dict(recipe.data), where="data")
        runner = attempt(cls, dict(recipe.trainer))
    if problems or runner is None:
        lines = [f"{path}: {line}" for problem in problems for line in str(problem).splitlines()]
        kind = type(problems[0]) if len(problems) == 1 else ConfigError
        raise kind("\n".join(lines)) from problems[0]
    return runner


def _show_plans(recipe: Recipe, plans: list[Plan], as_json: bool) -> None:
    import yaml

    values = recipe.model_dump(mode="json", exclude_none=True)
    if as_json:
        print_json({"recipe": values, "plans": [plan.to_dict() for plan in plans]})
        return
    print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    for plan in plans:
        print_table(plan.table())
        for note in plan.notes:
            print(f"note: {note}")
    print("the recipe is right; nothing was trained or written")


def _show_result(result: RunResult) -> None:
    from planish.report import Report
    from planish.report.terminal import table

    try:
        report = Report.model_validate(result.report)
    except ValueError as error:
        raise DataError(f"the runner's report is not one that planish reads: {error}") from error
    if report.variants:
        print_table(table(report))
    page = result.folder / "index.html"
    print(f"report: {page if page.exists() else result.folder / 'report.json'}")
