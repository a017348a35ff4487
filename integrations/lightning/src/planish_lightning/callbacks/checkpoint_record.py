"""What a Lightning checkpoint says about the transforms of its model, and refusing another recipe's checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from planish.api import LiveTransform, applied
from planish.errors import CheckpointError
from torch import nn

KEY = "planish"
"""Key of the record in a Lightning checkpoint."""


def record(model: nn.Module) -> list[dict[str, Any]]:
    """Return what has been applied to the model, as plain values."""
    return [_entry(live) for live in applied(model)]


def check(checkpoint: Mapping[str, Any], model: nn.Module) -> None:
    """Compare a checkpoint with what has been applied to the model it is to be loaded into.

    Which kernels a plan chose is no part of the comparison: a checkpoint may move to another machine.

    Raises:
        CheckpointError: It has no record, or a transform, an option or a module differs; the first one is named.
    """
    if KEY not in checkpoint:
        raise CheckpointError(
            "the checkpoint was saved without planish, and this run applies "
            f"{_names(_entry(live) for live in applied(model))}; resume it without the planish callbacks, or start a "
            "new run from its weights"
        )
    saved, own = checkpoint[KEY], record(model)
    if [e["use"] for e in saved] != [e["use"] for e in own]:
        raise CheckpointError(
            f"the checkpoint is from another recipe: it was saved with {_names(saved)}, this run applies "
            f"{_names(own)}; give both the same transforms in the same order"
        )
    for position, (old, new) in enumerate(zip(saved, own)):
        where = f"transform {position + 1} ({new['use']})"
        for option in sorted({*old["config"], *new["config"]}):
            before, now = old["config"].get(option), new["config"].get(option)
            if before != now:
                raise CheckpointError(
                    f"the checkpoint is from another recipe: {where} had {option} = {before!r}, this run has {now!r}; "
                    f"set it to {before!r} to resume"
                )
        if old["modules"] != new["modules"]:
            differing = sorted(set(old["modules"]) ^ set(new["modules"]))
            where_now = "only in the checkpoint" if differing[0] in old["modules"] else "only in this run"
            raise CheckpointError(
                f"the checkpoint is from another recipe: {where} changes {differing[0]!r} {where_now} "
                f"({len(old['modules'])} modules then, {len(new['modules'])} now); use the same model and targets"
            )


def _entry(live: LiveTransform) -> dict[str, Any]:
    return {
        "use": live.plan.use,
        "distribution": live.distribution,
        "version": live.version,
        "config": dict(live.plan.config),
        "modules": [module.name for module in live.plan.touched],
    }


def _names(entries: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(str(entry["use"]) for entry in entries) or "no transform"
