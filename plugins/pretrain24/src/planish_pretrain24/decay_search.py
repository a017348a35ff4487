"""Choosing the decay factor in warm-up: compare the flip rates of short sparse runs with that of the dense run.

For each factor, mu is the ratio of the sparse run's flip rate to the dense run's virtual one, averaged over the end of
the warm-up. A factor is feasible if mu lies in [0.60, 0.95] (ICML 2024, section 4.3): above, masks never settle; below,
they freeze before the weights are any good.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from planish.errors import DataError
from planish.interfaces.transform import Progress, Trial

from planish_pretrain24.config import Pretrain24Config
from planish_pretrain24.flip_rate import FLIP_RATE

FEASIBLE = (0.60, 0.95)
"""Bounds of mu between which a factor is feasible."""
TARGET = 0.8
"""The mu that is aimed at."""


@dataclass(frozen=True)
class DecayTrial:
    """One trial: the factor, its mean flip rate, mu (that rate over the dense run's), and whether it is feasible."""

    decay: float
    flip_rate: float
    mu: float
    feasible: bool


@dataclass(frozen=True)
class DecaySearch:
    """Result of the search.

    Attributes:
        chosen: The feasible factor with mu nearest to 0.8, or the nearest of all if none is feasible.
        dense_flip_rate: Mean virtual flip rate of the dense run over the same window.
        trials: One entry for each factor, in ascending order.
        steps: Optimizer steps of each trial.
        first_step: First step (from 1) that counts.
    """

    chosen: float
    dense_flip_rate: float
    trials: tuple[DecayTrial, ...]
    steps: int
    first_step: int

    @property
    def feasible(self) -> bool:
        """Whether the chosen factor is feasible."""
        return any(trial.feasible for trial in self.trials if trial.decay == self.chosen)

    def __str__(self) -> str:
        rows = ", ".join(f"{trial.decay:g}: {trial.mu:.2f}" for trial in self.trials)
        return (
            f"decay {self.chosen:g} chosen by {len(self.trials)} trials of {self.steps} steps; mu (flip rate over the "
            f"dense run's {self.dense_flip_rate:.2e}) by decay: {rows}; feasible in [{FEASIBLE[0]:g}, {FEASIBLE[1]:g}]"
        )


def find_decay(
    trial: Trial,
    grid: Sequence[float] | None = None,
    *,
    steps: int | None = None,
    window: float | None = None,
    config: Pretrain24Config | None = None,
    progress: Progress | None = None,
) -> DecaySearch:
    """Try decay factors in short runs against one dense run, and choose.

    Args:
        trial: ``trial(transform, steps)`` trains a fresh copy of the model under the transform, always with the same
            seed and data order, and returns the metrics of each step; :func:`planish_pretrain24.plain_trial` makes one
            from a model factory and batches.
        grid: Factors; None for those of ``config``.
        steps: Optimizer steps of a trial: the run's warm-up; None for ``config.search_steps``.
        window: Share of a trial, at its end, that counts; None for ``config.search_window``.
        config: Other options of the method; None for the defaults.
        progress: Told after each trial.

    Returns:
        The table, and the factor chosen.

    Raises:
        DataError: A trial reported no flip rate in the window, or the dense run's masks never flip.
        ConfigError: An option is out of bounds.
    """
    from planish_pretrain24.sparsifier import Pretrain24

    base = config or Pretrain24Config()
    overrides = {"search_grid": grid, "search_steps": steps, "search_window": window, "decay": "auto", "method": "fst"}
    options = base.model_dump() | {key: value for key, value in overrides.items() if value is not None}
    base = Pretrain24({**options, "search_grid": tuple(options["search_grid"])}).config
    factors = sorted(set(base.search_grid))
    first = base.search_steps - math.floor(base.search_steps * base.search_window) + 1

    def rate(what: str, done: int, **changed: object) -> float:
        transform = Pretrain24(base.model_copy(update={"dense_finish": 0.0, "layer_metrics": False, **changed}))
        if progress is not None:
            progress(done, len(factors) + 1, what)
        return _mean_flip_rate(trial(transform, base.search_steps), first, what)

    dense = rate("dense reference", 0, method="virtual", decay=0.0)
    if dense == 0:
        raise DataError(
            f"the dense run's masks did not flip in steps {first} to {base.search_steps}; lengthen search_steps, or "
            "give decay a number"
        )
    trials = []
    for done, factor in enumerate(factors, start=1):
        found = rate(f"decay {factor:g}", done, decay=factor)
        mu = found / dense
        trials.append(DecayTrial(factor, found, mu, FEASIBLE[0] <= mu <= FEASIBLE[1]))
    if progress is not None:
        progress(len(factors) + 1, len(factors) + 1, "decay chosen")
    pool = [t for t in trials if t.feasible] or trials
    best = min(pool, key=lambda t: abs(t.mu - TARGET))
    result = DecaySearch(best.decay, dense, tuple(trials), base.search_steps, first)
    if not best.feasible:
        warnings.warn(f"no decay factor of the grid is feasible; extend search_grid. {result}", stacklevel=2)
    return result


def _mean_flip_rate(metrics: Sequence[dict[str, float]], first: int, what: str) -> float:
    rates = [row[FLIP_RATE] for step, row in enumerate(metrics, start=1) if step >= first and FLIP_RATE in row]
    if not rates or not all(math.isfinite(value) for value in rates):
        raise DataError(
            f"the trial {what!r} reported {'no' if not rates else 'a non-finite'} flip rate from step {first} on; a "
            "trial returns the metrics of each step, of at least search_steps steps"
        )
    return sum(rates) / len(rates)
