"""How far a trajectory is from another: absolute and relative pose error (Sturm et al. 2012)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import PoseError
from planish_egovid.kinematics.pose.alignment import align
from planish_egovid.kinematics.pose.interpolation import interpolate
from planish_egovid.kinematics.pose.rotation import angle_deg
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory, inverse, product

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PoseErrors:
    """Errors pose by pose, or step by step.

    Attributes:
        translation: float64 [n], in the unit of the reference.
        rotation_deg: float64 [n].
    """

    translation: Array
    rotation_deg: Array

    @property
    def translation_rmse(self) -> float:
        """Root mean squared translation error."""
        return float(np.sqrt(np.mean(self.translation**2)))

    @property
    def rotation_rmse_deg(self) -> float:
        """Root mean squared rotation error in degrees."""
        return float(np.sqrt(np.mean(self.rotation_deg**2)))


def in_step(estimate: Trajectory, reference: Trajectory) -> tuple[Trajectory, Trajectory]:
    """Return the part of ``estimate`` that lies within ``reference``, and the reference interpolated to its times.

    Raises:
        PoseError: They overlap in fewer than two poses.
    """
    inside = (estimate.times_s >= reference.times_s[0]) & (estimate.times_s <= reference.times_s[-1])
    if np.count_nonzero(inside) < 2:
        raise PoseError("the trajectories do not overlap in time; compare their clocks")
    part = Trajectory(estimate.matrices[inside], estimate.times_s[inside], estimate.convention, estimate.is_metric)
    return part, interpolate(reference, part.times_s)


def absolute_errors(
    estimate: Trajectory, reference: Trajectory, *, alignment: Literal["none", "rigid", "similarity"] = "rigid"
) -> PoseErrors:
    """Return the absolute pose errors (ATE) after alignment; poses correspond one to one.

    Raises:
        PoseError: Unequal lengths, or the alignment is undetermined.
    """
    if len(estimate) != len(reference):
        raise PoseError(f"{len(estimate)} poses against {len(reference)}; bring them in step first")
    if alignment != "none":
        similarity = align(estimate, reference, with_scale=alignment == "similarity")
        estimate = similarity.trajectory(estimate)
    a, b = (t.to(PoseConvention.CAMERA_TO_WORLD) for t in (estimate, reference))
    return PoseErrors(
        np.linalg.norm(a.translations - b.translations, axis=1),
        angle_deg(np.swapaxes(a.rotations, 1, 2) @ b.rotations),
    )


def relative_errors(estimate: Trajectory, reference: Trajectory, *, step: int = 1) -> PoseErrors:
    """Return the relative pose errors (RPE) over ``step`` poses; no alignment is needed for them.

    Raises:
        PoseError: Unequal lengths, or no more poses than ``step``.
    """
    if len(estimate) != len(reference) or len(estimate) <= step:
        raise PoseError(f"{len(estimate)} poses against {len(reference)} with a step of {step}; nothing to compare")
    difference = product(inverse(reference.relative(step)), estimate.relative(step))
    return PoseErrors(np.linalg.norm(difference[:, :3, 3], axis=1), angle_deg(difference[:, :3, :3]))
