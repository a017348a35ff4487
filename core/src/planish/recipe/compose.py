"""Applying the transforms of a recipe together: all claims are checked before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from planish.api import LiveTransform, apply, check_claims, check_touches, resolve
from planish.config import validate
from planish.errors import CompositionError, ConfigError, PlanishError, PluginError
from planish.interfaces.plan import Plan, conflicts, misordered
from planish.plugins.manager import default_registry
from planish.plugins.registry import TRANSFORMS, Registry
from planish.recipe.schema import TransformSpec


def check_transforms(transforms: Sequence[TransformSpec], registry: Registry, *, first: int = 0) -> None:
    """Check names and options of a recipe's transforms, without a model.

    Args:
        transforms: The transforms.
        registry: Where their names are looked up.
        first: Position of the first of them in the recipe, for messages.

    Raises:
        PluginError: A transform is unknown, absent, blocked or broken.
        ConfigError: An option is wrong; the message has its place in the recipe.
    """
    for position, spec in enumerate(transforms, first):
        where = f"transforms[{position}]"
        try:
            cls = registry.load(spec.use, *TRANSFORMS)
        except PluginError as error:
            raise PluginError(f"{where}.use: {error}") from error
        validate(cls.Config, dict(spec.config), where=f"{where}.config")


def plan_all(model: nn.Module, transforms: Sequence[TransformSpec], registry: Registry | None = None) -> list[Plan]:
    """Return the plan of each transform on the untouched model.

    Raises:
        PluginError, ConfigError: As :func:`check_transforms`.
        CompositionError: A target matches nothing, a transform would change nothing, two exclude each other or stand in
            the wrong order.
    """
    registry = registry or default_registry()
    check_transforms(transforms, registry)
    plans: list[Plan] = []
    for position, spec in enumerate(transforms):
        transform, _, _ = resolve(spec.use, spec.config, registry)
        try:
            made = transform.plan(model, spec.targets)
            check_touches(model, made)
            check_claims(model, made)
        except (CompositionError, ConfigError) as error:
            raise type(error)(f"transforms[{position}] ({spec.use}): {error}") from error
        for earlier, other in enumerate(plans):
            for name, mine, theirs in misordered(other, made):
                raise CompositionError(
                    f"transforms[{earlier}] ({other.use}) changes {theirs} of {name!r} before transforms[{position}] "
                    f"({made.use}) changes its {mine}, and it only works the other way round; put {made.use} before "
                    f"{other.use}"
                )
            for name, aspect in conflicts(other, made):
                raise CompositionError(
                    f"transforms[{earlier}] ({other.use}) and transforms[{position}] ({made.use}) both change {aspect} "
                    f"of {name!r}, and only one of them can; leave {name!r} out of the targets of one of the two"
                )
        plans.append(made)
    return plans


def compose(
    model: nn.Module, transforms: Sequence[TransformSpec], registry: Registry | None = None
) -> list[LiveTransform]:
    """Apply transforms in order, after all their claims have been checked on the untouched model.

    Each is planned again on the model that its predecessors left, so that a plan says what it really does.

    Raises:
        PluginError, ConfigError, CompositionError: As :func:`plan_all`; nothing has been changed then.
        PlanishError: A transform refuses what its predecessors left although no claim says so; the message says that
            the model holds their changes.
    """
    registry = registry or default_registry()
    plan_all(model, transforms, registry)
    live: list[LiveTransform] = []
    for position, spec in enumerate(transforms):
        try:
            live.append(apply(model, spec.use, targets=spec.targets, registry=registry, **spec.config))
        except PlanishError as error:
            if not live:
                raise
            done = ", ".join(one.plan.use for one in live)
            raise type(error)(
                f"transforms[{position}] ({spec.use}): {error}; {done} had been applied, so build the model anew "
                "before you try again"
            ) from error
    return live
