"""The errors that planish raises on purpose: one root, one child per kind of cause."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PlanishError(Exception):
    """Root of all errors that planish raises on purpose.

    The message names the field or module, the value found, what would be accepted, and the next step, so that a
    command line can print it alone.
    """

    exit_code = 2
    """What the command line exits with: 2 for wrong input, 1 for work that failed."""


class ConfigError(PlanishError, ValueError):
    """A recipe, an option or a config field is wrong."""


class PluginError(PlanishError, LookupError):
    """A plugin is unknown, absent, blocked, broken, or does not keep its interface's contract."""

    def __str__(self) -> str:  # LookupError would quote nothing, but KeyError-like reprs are not wanted either
        """Return the plain message."""
        return str(self.args[0]) if self.args else ""


class CompositionError(PlanishError, ValueError):
    """Transforms cannot be combined on one module, or their targets match nothing."""


class UnsupportedError(PlanishError, RuntimeError):
    """What was asked for cannot be done on this machine, with this dtype, or with this module."""


class DataError(PlanishError, ValueError):
    """Input data is missing, empty or malformed."""


class CheckpointError(PlanishError, RuntimeError):
    """A checkpoint cannot be read, or belongs to another recipe, version or model."""


class WorkError(PlanishError, RuntimeError):
    """The input was right but the work failed: a full disk, an unwritable folder, an interruption."""

    exit_code = 1


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or an empty string."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
