"""A head that walks, bobs and looks around, with pose, velocity and rates in closed form at any time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi, radians, sin

import numpy as np
from numpy.typing import NDArray

GRAVITY_M_S2: NDArray[np.float64] = np.array([0.0, 9.80665, 0.0])
"""Gravity in the world, whose y axis points down."""


@dataclass(frozen=True)
class Swing:
    """A sinusoid: ``amplitude * sin(2π hz t + phase)``.

    Attributes:
        amplitude: In the unit of what swings.
        hz: Swings a second.
        phase: Radians at time 0.
    """

    amplitude: float
    hz: float
    phase: float = 0.0

    def at(self, time_s: float, derivative: int = 0) -> float:
        """Return its value at a time, or that of its first or second derivative."""
        rate = 2 * pi * self.hz
        return self.amplitude * rate**derivative * sin(rate * time_s + self.phase + derivative * pi / 2)


@dataclass(frozen=True)
class HeadMotion:
    """The camera's path: a straight walk with bobbing, and yaw, pitch and roll that swing.

    Rotation is camera-to-world, R = Ry(yaw) Rx(pitch) Rz(roll): yaw turns right, pitch looks up, roll tips the head
    clockwise.

    Attributes:
        yaw_deg: Swing of the yaw in degrees.
        pitch_deg: Swing of the pitch.
        roll_deg: Swing of the roll.
        spin_deg_s: Constant yaw rate on top of the swing.
        start_m: Where the walk starts in the world.
        velocity_m_s: Of the walk, in the world.
        bob_m: Swing of the height, in metres downwards.
    """

    yaw_deg: Swing = Swing(20.0, 0.4)
    pitch_deg: Swing = Swing(5.0, 0.6)
    roll_deg: Swing = Swing(3.0, 1.0)
    spin_deg_s: float = 0.0
    start_m: tuple[float, float, float] = (0.0, 0.0, -2.0)
    velocity_m_s: tuple[float, float, float] = (0.0, 0.0, 0.5)
    bob_m: Swing = Swing(0.03, 2.0)

    @classmethod
    def still(cls) -> HeadMotion:
        """Return a head that does not move at all."""
        none = Swing(0.0, 1.0)
        return cls(none, none, none, velocity_m_s=(0.0, 0.0, 0.0), bob_m=none)

    @classmethod
    def spinning(cls, deg_s: float) -> HeadMotion:
        """Return a head that only turns right, at a constant rate in degrees a second."""
        return replace(cls.still(), spin_deg_s=deg_s)

    @classmethod
    def walking(cls, velocity_m_s: tuple[float, float, float] = (0.0, 0.0, 0.5)) -> HeadMotion:
        """Return a head that looks straight along +z while the body goes at a constant velocity."""
        return replace(cls.still(), velocity_m_s=velocity_m_s)

    def times(self, factor: float) -> HeadMotion:
        """Return the motion with all of its speeds and amplitudes times ``factor``, and the same frequencies."""

        def swing(given: Swing) -> Swing:
            return replace(given, amplitude=given.amplitude * factor)

        vx, vy, vz = self.velocity_m_s
        return replace(
            self,
            yaw_deg=swing(self.yaw_deg),
            pitch_deg=swing(self.pitch_deg),
            roll_deg=swing(self.roll_deg),
            spin_deg_s=self.spin_deg_s * factor,
            velocity_m_s=(vx * factor, vy * factor, vz * factor),
            bob_m=swing(self.bob_m),
        )

    def scaled(self, factor: float) -> HeadMotion:
        """Return the same motion in a world that is larger by ``factor``: lengths change, angles do not."""
        x, y, z = self.start_m
        vx, vy, vz = self.velocity_m_s
        return replace(
            self,
            start_m=(x * factor, y * factor, z * factor),
            velocity_m_s=(vx * factor, vy * factor, vz * factor),
            bob_m=replace(self.bob_m, amplitude=self.bob_m.amplitude * factor),
        )

    def angles(self, time_s: float, derivative: int = 0) -> tuple[float, float, float]:
        """Return yaw, pitch and roll in radians, or their derivatives by time."""
        spin = self.spin_deg_s * (time_s if derivative == 0 else 1.0 if derivative == 1 else 0.0)
        return (
            radians(self.yaw_deg.at(time_s, derivative) + spin),
            radians(self.pitch_deg.at(time_s, derivative)),
            radians(self.roll_deg.at(time_s, derivative)),
        )

    def rotation(self, time_s: float) -> NDArray[np.float64]:
        """Return the camera-to-world rotation, float64 [3, 3]."""
        yaw, pitch, roll = self.angles(time_s)
        return _about_y(yaw) @ _about_x(pitch) @ _about_z(roll)

    def position(self, time_s: float) -> NDArray[np.float64]:
        """Return the camera's position in the world, float64 [3], metres."""
        at = np.asarray(self.start_m) + np.asarray(self.velocity_m_s) * time_s
        return at + np.array([0.0, self.bob_m.at(time_s), 0.0])

    def velocity(self, time_s: float) -> NDArray[np.float64]:
        """Return the velocity in the world, float64 [3], m/s."""
        return np.asarray(self.velocity_m_s) + np.array([0.0, self.bob_m.at(time_s, 1), 0.0])

    def acceleration(self, time_s: float) -> NDArray[np.float64]:
        """Return the acceleration in the world without gravity, float64 [3], m/s²."""
        return np.array([0.0, self.bob_m.at(time_s, 2), 0.0])

    def body_rates(self, time_s: float) -> NDArray[np.float64]:
        """Return the angular velocity in camera axes, float64 [3], rad/s."""
        _, pitch, roll = self.angles(time_s)
        yaw_rate, pitch_rate, roll_rate = self.angles(time_s, 1)
        to_roll, to_pitch = _about_z(roll).T, _about_x(pitch).T
        around_x = to_roll @ np.array([pitch_rate, 0.0, 0.0])
        around_y = to_roll @ to_pitch @ np.array([0.0, yaw_rate, 0.0])
        return around_x + around_y + np.array([0.0, 0.0, roll_rate])

    def pose(self, time_s: float) -> NDArray[np.float64]:
        """Return the camera-to-world pose, float64 [4, 4]."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation(time_s)
        pose[:3, 3] = self.position(time_s)
        return pose


def _about_x(angle: float) -> NDArray[np.float64]:
    c, s = cos(angle), sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle: float) -> NDArray[np.float64]:
    c, s = cos(angle), sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle: float) -> NDArray[np.float64]:
    c, s = cos(angle), sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
