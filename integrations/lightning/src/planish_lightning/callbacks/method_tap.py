"""Listening to methods of a LightningModule that callbacks have no hook for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import lightning as L

_TAPS = "_planish_taps"


@dataclass
class _Tap:
    original: Callable[..., Any]
    was_instance_attribute: bool
    before: list[Callable[..., None]] = field(default_factory=list)
    after: list[Callable[..., None]] = field(default_factory=list)


def tap(
    module: L.LightningModule,
    method: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> Callable[[], None]:
    """Call ``before`` and ``after`` around ``module.method(…)`` with its arguments; return how to stop that.

    Several listeners share one wrapper, and removing the last one leaves the module as it was.
    """
    taps: dict[str, _Tap] = module.__dict__.setdefault(_TAPS, {})
    if method not in taps:
        taps[method] = _install(module, method)
    chosen = taps[method]
    if before is not None:
        chosen.before.append(before)
    if after is not None:
        chosen.after.append(after)

    def remove() -> None:
        if before in chosen.before:
            chosen.before.remove(before)
        if after in chosen.after:
            chosen.after.remove(after)
        if not chosen.before and not chosen.after and taps.get(method) is chosen:
            del taps[method]
            if chosen.was_instance_attribute:
                module.__dict__[method] = chosen.original
            else:
                del module.__dict__[method]
            if not taps:
                module.__dict__.pop(_TAPS, None)

    return remove


def _install(module: L.LightningModule, method: str) -> _Tap:
    made = _Tap(getattr(module, method), method in module.__dict__)

    @wraps(made.original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for listener in tuple(made.before):
            listener(*args, **kwargs)
        result = made.original(*args, **kwargs)
        for listener in tuple(made.after):
            listener(*args, **kwargs)
        return result

    module.__dict__[method] = wrapped
    return made
