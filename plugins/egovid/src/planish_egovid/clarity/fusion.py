"""How DOVER joins its technical and its aesthetic branch into one score (VQAssessment/DOVER, ``fuse_results``)."""

from __future__ import annotations

from math import exp

TECHNICAL_WEIGHT, TECHNICAL_MEAN, TECHNICAL_STD = 0.6104, 0.1107, 0.07355
AESTHETIC_WEIGHT, AESTHETIC_MEAN, AESTHETIC_STD = 0.3896, -0.08285, 0.03774


def fused(technical: float, aesthetic: float) -> float:
    """Return DOVER's overall score, 0 to 1; 0.5 where both branches give their mean.

    Args:
        technical: Raw mean output of the technical branch.
        aesthetic: Raw mean output of the aesthetic branch.
    """
    x = (
        TECHNICAL_WEIGHT * (technical - TECHNICAL_MEAN) / TECHNICAL_STD
        + AESTHETIC_WEIGHT * (aesthetic - AESTHETIC_MEAN) / AESTHETIC_STD
    )
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))
