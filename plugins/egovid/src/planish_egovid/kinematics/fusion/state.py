"""The state of the inertial filter: where, how fast, which way, the sensor's biases, gravity, and the picture's scale.

Errors live in a 24-vector beside the nominal state: the 15 of an inertial filter (position, velocity, attitude,
gyroscope bias, accelerometer bias), two of the direction of gravity, one of the logarithm of the scale, and six of a
clone of the pose at the previous picture, which relative measurements refer to (Roumeliotis and Burdick 2002).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.imu.gravity import STANDARD_GRAVITY
from planish_egovid.kinematics.pose.rotation import exp, log

Array = NDArray[np.float64]

P, V, TH, BG, BA = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12), slice(12, 15)
G, S = slice(15, 17), slice(17, 18)
CP, CTH = slice(18, 21), slice(21, 24)
SIZE = 24
INERTIAL = slice(0, 15)
"""The 15 errors of the inertial state itself."""


@dataclass(frozen=True, eq=False)
class NavigationState:
    """A nominal state; the world frame is the picture's, so gravity's direction in it is part of the state.

    Attributes:
        position: float64 [3], metres.
        velocity: float64 [3], m/s.
        rotation: float64 [3, 3], sensor to world.
        gyro_bias: float64 [3], rad/s.
        accel_bias: float64 [3], m/s^2.
        gravity_rotation: float64 [3, 3]; gravity is 9.80665 m/s^2 along its third column. Its error has two degrees of
            freedom: turning about gravity itself changes nothing.
        log_scale: Logarithm of the metres of one unit of the picture's trajectory; so the scale is positive.
        clone_position: float64 [3], position at the previous picture.
        clone_rotation: float64 [3, 3], the same for the rotation.
    """

    position: Array = field(default_factory=lambda: np.zeros(3))
    velocity: Array = field(default_factory=lambda: np.zeros(3))
    rotation: Array = field(default_factory=lambda: np.eye(3))
    gyro_bias: Array = field(default_factory=lambda: np.zeros(3))
    accel_bias: Array = field(default_factory=lambda: np.zeros(3))
    gravity_rotation: Array = field(default_factory=lambda: np.eye(3))
    log_scale: float = 0.0
    clone_position: Array = field(default_factory=lambda: np.zeros(3))
    clone_rotation: Array = field(default_factory=lambda: np.eye(3))

    @property
    def gravity(self) -> Array:
        """Gravity in the world, m/s^2, [3]."""
        return STANDARD_GRAVITY * self.gravity_rotation[:, 2]

    def plus(self, error: Array) -> NavigationState:
        """Return the state with an error [24] added; rotations are perturbed from the right."""
        return NavigationState(
            self.position + error[P],
            self.velocity + error[V],
            self.rotation @ exp(error[TH]),
            self.gyro_bias + error[BG],
            self.accel_bias + error[BA],
            self.gravity_rotation @ exp(np.append(error[G], 0.0)),
            self.log_scale + float(error[S][0]),
            self.clone_position + error[CP],
            self.clone_rotation @ exp(error[CTH]),
        )

    def minus(self, other: NavigationState) -> Array:
        """Return the error [24] that leads from ``other`` to this state; the inverse of :meth:`plus`."""
        down = other.gravity_rotation.T @ self.gravity_rotation[:, 2]
        # The shortest turn from the third axis to ``down`` has no component about it: two degrees of freedom.
        across = np.array([-down[1], down[0]])
        sine = float(np.linalg.norm(across))
        tilt = across * (np.arctan2(sine, down[2]) / sine) if sine > 1e-12 else across
        return np.concatenate(
            [
                self.position - other.position,
                self.velocity - other.velocity,
                log(other.rotation.T @ self.rotation),
                self.gyro_bias - other.gyro_bias,
                self.accel_bias - other.accel_bias,
                tilt,
                [self.log_scale - other.log_scale],
                self.clone_position - other.clone_position,
                log(other.clone_rotation.T @ self.clone_rotation),
            ]
        )

    def cloned(self) -> NavigationState:
        """Return the state with its present pose as the clone."""
        return replace(self, clone_position=self.position, clone_rotation=self.rotation)


def gravity_rotation_of(direction: Array) -> Array:
    """Return a rotation [3, 3] whose third column is a unit direction [3]."""
    down = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    across = np.cross([0.0, 0.0, 1.0], down)
    sine = float(np.linalg.norm(across))
    if sine < 1e-12:
        return np.eye(3) if down[2] > 0 else np.diag([1.0, -1.0, -1.0])
    return exp(across * (np.arctan2(sine, down[2]) / sine))


CLONING = np.eye(SIZE)
"""What taking a clone does to the errors."""
CLONING[CP, CP] = CLONING[CTH, CTH] = 0
CLONING[CP, P] = CLONING[CTH, TH] = np.eye(3)
