"""The three verbs: plan, apply, finish."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from planish.errors import CompositionError, ConfigError
from planish.interfaces.plan import Plan, conflicts, misordered
from planish.interfaces.transform import ModelTransform
from planish.plugins.manager import default_registry
from planish.plugins.registry import TRANSFORMS, Registry

_RECORDS = "planish_records"


@dataclass
class LiveTransform:
    """A transform at work on a model: what :func:`apply` returns and a training loop calls.

    Call :meth:`on_train_start` once, :meth:`on_gradients` between clipping and ``optimizer.step()``, and
    :meth:`on_step` after it.

    Attributes:
        model: The model it was applied to.
        transform: The transform.
        plan: What was done.
        distribution: The distribution that brought the transform.
        version: That distribution's version.
        finished: Whether :func:`finish` has run.
    """

    model: nn.Module
    transform: ModelTransform
    plan: Plan
    distribution: str
    version: str
    finished: bool = False

    def on_train_start(self, total_steps: int) -> None:
        """Tell the transform how many optimizer steps the run will have."""
        self.transform.on_train_start(self.model, total_steps)

    def on_gradients(self, step: int) -> None:
        """Change the accumulated, unscaled, clipped gradients before optimizer step ``step`` (from 0)."""
        if not self.finished:
            self.transform.on_gradients(self.model, step)

    def on_step(self, step: int) -> Mapping[str, float]:
        """Drive schedules after ``step`` optimizer steps (from 1); return metrics by name."""
        return {} if self.finished else self.transform.on_step(self.model, step)

    def finish(self) -> None:
        """Turn the model into its deployable form as far as this transform is concerned."""
        if not self.finished:
            self.transform.finish(self.model)
            self.finished = True

    def __deepcopy__(self, memo: dict[int, Any]) -> LiveTransform:
        """Copy along with the model: within ``deepcopy(model)`` the copy refers to the copied model."""
        return LiveTransform(
            copy.deepcopy(self.model, memo),
            copy.deepcopy(self.transform, memo),
            self.plan,
            self.distribution,
            self.version,
            self.finished,
        )


def resolve(
    use: str | ModelTransform, options: Mapping[str, Any], registry: Registry | None = None
) -> tuple[ModelTransform, str, str]:
    """Return ``(transform, distribution, version)`` for a registered name or a transform object.

    Raises:
        PluginError: No such transform, or it is broken.
        ConfigError: An option is wrong, or options are given beside a transform object.
    """
    if isinstance(use, ModelTransform):
        if options:
            raise ConfigError(f"{use.name}: options {sorted(options)} beside a transform object; put them into it")
        return use, "(in memory)", "0"
    registry = registry or default_registry()
    cls = registry.load(use, *TRANSFORMS)
    entry = registry.find(use, *TRANSFORMS)
    return cls(dict(options)), entry.distribution, entry.version


def plan(
    model: nn.Module,
    use: str | ModelTransform,
    *,
    targets: Sequence[str] | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> Plan:
    """Say what a method would change in a model and why not the rest; change nothing.

    Args:
        model: The model.
        use: Name of a quantizer or sparsifier (``planish plugins`` lists them), or a transform object.
        targets: Glob patterns over module names; None for what the method would choose.
        registry: Where names are looked up; None for what is installed.
        options: The method's options (``planish describe NAME`` lists them).

    Returns:
        The plan; printing it prints a table.

    Raises:
        PluginError: No such method, or it is not installed.
        ConfigError: An option is unknown or out of bounds.
        CompositionError: A pattern matches nothing, or what is applied already excludes this method.
    """
    transform, _, _ = resolve(use, options, registry)
    made = transform.plan(model, targets)
    check_claims(model, made)
    return made


def apply(
    model: nn.Module,
    use: str | ModelTransform | Plan,
    *,
    targets: Sequence[str] | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> LiveTransform:
    """Apply a method to a model in place, before the optimizer is built.

    Takes what :func:`plan` takes, or the plan that it returned.

    Returns:
        The live transform, whose hooks a training loop calls; ``planish-lightning`` calls them for you.

    Raises:
        PluginError: No such method, or it is not installed.
        ConfigError: An option is unknown or out of bounds.
        CompositionError: Nothing would be changed, a pattern matches nothing, or another method excludes this one.
    """
    if isinstance(use, Plan):
        if targets is not None or options:
            raise ConfigError("targets and options belong to planish.plan(); apply(model, plan) takes the plan alone")
        made = use
        transform, distribution, version = resolve(made.use, made.config, registry)
    else:
        transform, distribution, version = resolve(use, options, registry)
        made = transform.plan(model, targets)
    check_touches(model, made)
    check_claims(model, made)
    transform.apply(model, made)
    live = LiveTransform(model, transform, made, distribution, version)
    records = list(applied(model))
    object.__setattr__(model, _RECORDS, [*records, live])
    return live


def finish(what: nn.Module | LiveTransform) -> nn.Module:
    """Turn a transformed model into its deployable form, in place, and return it.

    Args:
        what: The model (all its transforms are finished, last applied first) or one live transform.
    """
    if isinstance(what, LiveTransform):
        what.finish()
        return what.model
    for live in reversed(list(applied(what))):
        live.finish()
    return what


def applied(model: nn.Module) -> Iterator[LiveTransform]:
    """Yield what has been applied to a model, in order."""
    yield from getattr(model, _RECORDS, ())


def check_touches(model: nn.Module, plan: Plan) -> None:
    """Check that a plan changes something.

    Raises:
        CompositionError: It does not; the message has the first reasons.
    """
    if not plan.touched:
        why = "; ".join(f"{m.name}: {m.reason}" for m in plan.skipped[:3]) or "it looked at no module"
        raise CompositionError(f"{plan.use} would change nothing in {type(model).__name__} ({why}); widen targets")


def check_claims(model: nn.Module, plan: Plan) -> None:
    """Check a plan against what has been applied to the model.

    Raises:
        CompositionError: Both claim one aspect of one module, one of them exclusively; or the new one comes too late.
    """
    for live in applied(model):
        if live.finished:
            continue
        for name, mine, theirs in misordered(live.plan, plan):
            raise CompositionError(
                f"{live.plan.use} has changed {theirs} of {name!r}, and {plan.use} changes its {mine}, which has to "
                f"come first; apply {plan.use} to a model before {live.plan.use}"
            )
        for name, aspect in conflicts(live.plan, plan):
            raise CompositionError(
                f"{live.plan.use} and {plan.use} both change {aspect} of {name!r}, and only one of them can; "
                f"leave {name!r} out of the targets of one of the two"
            )
