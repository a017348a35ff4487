"""What the picture measures of the state: turns, directions, and poses up to scale.

The sensor's axes are taken to be the camera's: a recording is turned into them before it is fused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.fusion.state import CP, CTH, SIZE, TH, NavigationState, P, S
from planish_egovid.kinematics.pose.epipolar_fit import tangent_basis
from planish_egovid.kinematics.pose.rotation import hat, log, right_jacobian_inverse

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Linearised:
    """A measurement around a state.

    Attributes:
        residual: [m], measured minus predicted.
        jacobian: [m, 24], of the prediction by the state's errors.
        covariance: [m, m], of the measurement.
    """

    residual: Array
    jacobian: Array
    covariance: Array


class Measurement(Protocol):
    """Something measured at the time of one picture."""

    def linearised(self, state: NavigationState, covariance: Array) -> Linearised:
        """Return the measurement around a state whose error has a covariance [24, 24]."""


@dataclass(frozen=True, eq=False)
class RelativeRotation:
    """The turn from the previous picture to this one.

    Attributes:
        rotation: [3, 3], from the previous camera's axes to this one's.
        covariance: [3, 3] in rad^2, of a perturbation from the left.
    """

    rotation: Array
    covariance: Array

    def linearised(self, state: NavigationState, covariance: Array) -> Linearised:
        """Return the rotation vector between the measured and the predicted turn."""
        predicted = state.rotation.T @ state.clone_rotation
        residual = log(self.rotation @ predicted.T)
        slope = right_jacobian_inverse(residual)
        jacobian = np.zeros((3, SIZE))
        jacobian[:, TH] = -slope
        jacobian[:, CTH] = slope @ predicted
        return Linearised(residual, jacobian, self.covariance)


@dataclass(frozen=True, eq=False)
class TranslationDirection:
    """The direction of the step from the previous picture to this one; its length is not measured.

    Attributes:
        direction: Unit [3] in this camera's axes, as in ``x2 = R x1 + s direction``.
        covariance: [3, 3] of it.
    """

    direction: Array
    covariance: Array

    def linearised(self, state: NavigationState, covariance: Array) -> Linearised:
        """Return the part of the step that lies across the measured direction, which should be none.

        In this form the measurement is linear in the step, so that it holds from the first step on, when neither the
        speed nor its sign is known.
        """
        step = state.rotation.T @ (state.position - state.clone_position)
        to_step = np.zeros((3, SIZE))
        to_step[:, P], to_step[:, CP] = state.rotation.T, -state.rotation.T
        to_step[:, TH] = hat(step)
        spread = to_step @ covariance @ to_step.T
        length2 = float(step @ step + np.trace(spread))
        basis = tangent_basis(self.direction)
        noise = length2 * basis.T @ self.covariance @ basis + 1e-10 * np.eye(2)
        return Linearised(-basis.T @ step, basis.T @ to_step, noise)


@dataclass(frozen=True, eq=False)
class ScaledPosition:
    """The camera's place in the picture's own unit of length.

    Attributes:
        position: [3].
        covariance: [3, 3], in that unit squared.
    """

    position: Array
    covariance: Array

    def linearised(self, state: NavigationState, covariance: Array) -> Linearised:
        """Return the difference between the measured and the predicted place."""
        shrink = float(np.exp(-state.log_scale))
        predicted = shrink * state.position
        jacobian = np.zeros((3, SIZE))
        jacobian[:, P] = shrink * np.eye(3)
        jacobian[:, S] = -predicted[:, None]
        return Linearised(self.position - predicted, jacobian, self.covariance)


@dataclass(frozen=True, eq=False)
class Attitude:
    """The camera's rotation in the picture's world.

    Attributes:
        rotation: [3, 3], camera to world.
        covariance: [3, 3] in rad^2, of a perturbation from the right.
    """

    rotation: Array
    covariance: Array

    def linearised(self, state: NavigationState, covariance: Array) -> Linearised:
        """Return the rotation vector from the predicted to the measured attitude."""
        residual = log(state.rotation.T @ self.rotation)
        jacobian = np.zeros((3, SIZE))
        jacobian[:, TH] = right_jacobian_inverse(-residual)
        return Linearised(residual, jacobian, self.covariance)
