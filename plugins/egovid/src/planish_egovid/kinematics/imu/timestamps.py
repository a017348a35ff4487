"""Time stamps of inertial recordings: refusing what cannot be trusted, or repairing it and saying so."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import ImuTimestampError

Array = NDArray[np.float64]
_log = logging.getLogger(__name__)

MAX_REPAIR_FRAC = 0.2
"""A recording in which more samples than this are wrong is refused: what is left is not evidence enough."""


@dataclass(frozen=True, eq=False)
class CleanSamples:
    """Samples with finite, strictly rising times.

    Attributes:
        times_s: float64 [n].
        values: float64 [n, k].
        is_repaired: Whether anything had to be dropped or moved.
    """

    times_s: Array
    values: Array
    is_repaired: bool


def clean_samples(times_s: Array, values: Array, *, repair: bool, where: str, max_span_s: float = 1e5) -> CleanSamples:
    """Return samples that have finite values and strictly rising times.

    Repairing drops samples without a time or with an absurd one (further than ``max_span_s`` from the median) or with
    a value that is not finite, sorts the rest by time, and keeps the first of those with the same time.

    Args:
        times_s: [n]; NaN where there is none.
        values: [n, k].
        repair: Whether to repair; otherwise anything wrong is an error.
        where: For messages, such as the file's path.
        max_span_s: No recording is longer than twice this.

    Raises:
        ImuTimestampError: Something is wrong and ``repair`` is off, or more than a fifth of the samples is wrong.
    """
    times, data = np.asarray(times_s, np.float64), np.asarray(values, np.float64)
    finite = np.isfinite(times)
    if not finite.any():
        raise ImuTimestampError(f"{where}: none of {len(times)} samples has a time stamp; export it with times")
    absurd = finite & (np.abs(times - np.median(times[finite])) > max_span_s)
    without_value = ~np.isfinite(data).all(axis=1)
    kept = finite & ~absurd & ~without_value
    if np.count_nonzero(kept) < 2:
        raise ImuTimestampError(f"{where}: {np.count_nonzero(kept)} of {len(times)} samples are usable")
    steps = np.diff(times[kept])
    found = {
        "without a time stamp": int(np.count_nonzero(~finite)),
        "with an absurd time stamp": int(np.count_nonzero(absurd)),
        "whose value is not finite": int(np.count_nonzero(finite & ~absurd & without_value)),
        "whose time runs backwards": int(np.count_nonzero(steps < 0)),
        "whose time repeats": int(np.count_nonzero(steps == 0)),
    }
    wrong = {what: count for what, count in found.items() if count}
    if not wrong:
        return CleanSamples(times, data, False)
    message = f"{where}: of {len(times)} samples there are " + ", ".join(f"{n} {what}" for what, n in wrong.items())
    if not repair:
        raise ImuTimestampError(f"{message}; allow repairing them, or export the recording again")
    if sum(wrong.values()) > MAX_REPAIR_FRAC * len(times):
        raise ImuTimestampError(f"{message}; that is too many to repair (more than {MAX_REPAIR_FRAC:.0%})")
    _log.warning("%s; repaired by dropping and sorting", message)
    times, data = times[kept], data[kept]
    order = np.argsort(times, kind="stable")
    times, data = times[order], data[order]
    rising = np.concatenate([[True], np.diff(times) > 0])
    return CleanSamples(times[rising], data[rising], True)
