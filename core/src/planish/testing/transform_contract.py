"""TransformContract: what quantizers and sparsifiers have to keep alike."""

from __future__ import annotations

from planish.testing.transform.applying import ApplyingClauses
from planish.testing.transform.finishing import FinishingClauses
from planish.testing.transform.placement import PlacementClauses
from planish.testing.transform.planning import PlanningClauses
from planish.testing.transform.state import StateClauses
from planish.testing.transform.survival import SurvivalClauses
from planish.testing.transform.training import TrainingClauses


class TransformContract(
    PlanningClauses,
    ApplyingClauses,
    StateClauses,
    TrainingClauses,
    FinishingClauses,
    PlacementClauses,
    SurvivalClauses,
):
    """The clauses of :class:`planish.interfaces.ModelTransform`; use the suite of the kind, which adds its own."""
