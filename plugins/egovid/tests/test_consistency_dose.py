"""More of a fault gives more of its metric, and none of an unrelated one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from planish_egovid.clarity.axis import ClarityAxis, ClarityConfig
from planish_egovid.consistency.axis import ConsistencyAxis, ConsistencyConfig
from planish_egovid.testing import HeadMotion, corruptions, view_of
from planish_egovid.testing.fixtures import rendered
from scipy.stats import spearmanr

CONSISTENCY, CLARITY = ConsistencyAxis(ConsistencyConfig()), ClarityAxis(ClarityConfig())
BOUNDS = {
    rule.metric: rule.default.min if rule.default.min is not None else rule.default.max
    for rule in (*CONSISTENCY.rules, *CLARITY.rules)
}


def walk(seed: int = 0) -> np.ndarray:
    return rendered(HeadMotion().times(0.5), 90, 30.0, 160, 90, seed).frames


@dataclass(frozen=True)
class Dose:
    levels: tuple[float, ...]
    spoil: Callable[[float], np.ndarray | list[np.ndarray]]
    metric: str
    direction: int
    unrelated: str


def several_cuts(count: float) -> np.ndarray:
    frames = walk().copy()
    for part in range(int(count)):
        start = 12 + 15 * part
        if part % 2 == 0:
            frames[start:] = walk(1)[start:]
        else:
            frames[start:] = walk()[start:]
    return frames


DOSES = {
    "blur": Dose(
        (0, 0.5, 1, 1.5, 2.5, 4),
        lambda x: corruptions.gaussian_blur(walk(), x),
        "clarity_proxy",
        -1,
        "cut_score",
    ),
    "compression": Dose(
        (20, 27, 32, 37, 42, 47),
        lambda x: corruptions.compress(walk(), int(x)),
        "clarity_proxy",
        -1,
        "border_frac",
    ),
    "noise": Dose((0, 3, 6, 12, 24, 48), lambda x: corruptions.noise(walk(), x), "clarity_proxy", -1, "cut_score"),
    "brightness": Dose(
        (1, 1.4, 1.8, 2.3, 3, 4),
        lambda x: corruptions.exposure_jump(walk(), 0, x),
        "clarity_proxy",
        -1,
        "cut_score",
    ),
    "letterbox": Dose(
        (0, 0.1, 0.2, 0.3, 0.4, 0.5), lambda x: corruptions.letterbox(walk(), x), "border_frac", 1, "clarity_proxy"
    ),
    "freeze": Dose(
        (0, 12, 24, 36, 48, 60), lambda x: corruptions.freeze(walk(), 10, int(x)), "freeze_frac", 1, "clarity_proxy"
    ),
    "shuffle": Dose(
        (0, 24, 38, 52, 66, 80),
        lambda x: [corruptions.shuffle_segment(walk(), 5, int(x), seed=seed) for seed in range(4)],
        "disorder_frac",
        1,
        "clarity_proxy",
    ),
    "cuts": Dose((0, 1, 2, 3, 4, 5), several_cuts, "cuts", 1, "border_frac"),
    "exposure": Dose(
        (1, 0.85, 0.7, 0.5, 0.35, 0.2),
        lambda x: corruptions.exposure_jump(walk(), 45, x),
        "exposure_jump",
        1,
        "freeze_frac",
    ),
}


@cache
def responses(fault: str) -> list[dict[str, float]]:
    """What the metrics and the unrelated one say at each level; means over variants of the fault."""
    dose = DOSES[fault]
    found = []
    for level in dose.levels:
        spoilt = dose.spoil(level)
        rows = []
        for frames in spoilt if isinstance(spoilt, list) else [spoilt]:
            view = view_of(frames, CONSISTENCY, CLARITY)
            rows.append(CONSISTENCY.measure(view) | CLARITY.measure(view))
        found.append({name: float(np.mean([row[name] for row in rows])) for name in (dose.metric, dose.unrelated)})
    return found


def correlation(values: list[float]) -> float:
    """Spearman's with the level; 0 if nothing changes."""
    return 0.0 if len(set(values)) == 1 else float(spearmanr(range(len(values)), values).statistic)


@pytest.mark.parametrize("fault", DOSES)
def test_the_metric_follows_the_dose(fault: str) -> None:
    dose = DOSES[fault]
    values = [row[dose.metric] for row in responses(fault)]
    assert dose.direction * correlation(values) >= 0.95, values


@pytest.mark.parametrize("fault", DOSES)
def test_an_unrelated_metric_does_not(fault: str) -> None:
    dose = DOSES[fault]
    values = [row[dose.unrelated] for row in responses(fault)]
    # What moves by less than a third of the way to its bound has not moved as far as a decision goes.
    step = abs(BOUNDS[dose.unrelated] - values[0]) / 3
    assert abs(correlation([round((value - values[0]) / step) for value in values])) < 0.3, values
