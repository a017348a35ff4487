"""Keeping a run's output to what concerns its user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning")
_FRAMEWORKS = ("lightning", "torch", "transformers", "lightning_utilities")


@contextmanager
def quiet(tell: Callable[[str], None]) -> Iterator[None]:
    """Silence the frameworks' chatter, and hand every other warning to ``tell`` as one line.

    Args:
        tell: Called with each warning once.
    """
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    told: set[str] = set()

    def show(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        parts = Path(filename).parts
        package = parts[parts.index("site-packages") + 1] if "site-packages" in parts[:-1] else ""
        text = " ".join(str(message).split())
        if package in _FRAMEWORKS or issubclass(category, DeprecationWarning) or text in told:
            return
        told.add(text)
        tell(text)

    with warnings.catch_warnings():
        warnings.showwarning = show
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
