"""The answer to "can this backend do that?": yes, or no with the reason."""

from __future__ import annotations

from typing import NamedTuple


class Support(NamedTuple):
    """Whether something can run, and if not, why.

    Truthiness is ``ok`` (not the tuple's length), so ``if supports(x):`` reads as it should.
    """

    ok: bool
    reason: str = ""
    #: Whether a person could lift the reason (another shape, dtype or layout), so that a silent fallback is worth one
    #: warning. A machine without a GPU, or a tensor that lives on the CPU, is not such a reason.
    worth_warning: bool = True

    def __bool__(self) -> bool:
        return self.ok


YES = Support(True)


def no(reason: str, *, worth_warning: bool = True) -> Support:
    """A refusal. ``reason`` names what was found and what would be accepted; see ``Support.worth_warning``."""
    return Support(False, reason, worth_warning)
