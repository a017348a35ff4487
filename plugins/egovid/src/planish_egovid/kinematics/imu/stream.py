"""ImuStream: angular velocity and specific force over time, on the clip's clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import ImuError

Array = NDArray[np.float64]

MAX_GAP_S = 0.05
"""A pause between samples that is longer than this is a gap."""


@dataclass(frozen=True, eq=False)
class ImuStream:
    """An inertial recording.

    Attributes:
        times_s: float64 [n], seconds from the file's or clip's start, strictly rising.
        gyro: float64 [n, 3], rad/s.
        accel: float64 [n, 3], specific force in m/s^2 (at rest it points up and has gravity's size), or NaN where the
            recording has none.
        source: Such as ``"gpmf GoPro Max"`` or ``"csv"``.
        is_repaired: Whether time stamps or samples had to be repaired.
        axes_are_camera: Whether the axes are the camera's: x right, y down, z forward.
    """

    times_s: Array
    gyro: Array
    accel: Array
    source: str
    is_repaired: bool = False
    axes_are_camera: bool = False

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ImuError: Lengths differ or there are fewer than two samples.
        """
        n = len(self.times_s)
        if n < 2 or self.gyro.shape != (n, 3) or self.accel.shape != (n, 3):
            raise ImuError(
                f"an inertial recording needs two or more samples and equal lengths; there are {n} times, gyro "
                f"{list(self.gyro.shape)}, accel {list(self.accel.shape)}"
            )

    @property
    def rate_hz(self) -> float:
        """Median samples a second."""
        return float(1 / np.median(np.diff(self.times_s)))

    @property
    def has_accel(self) -> bool:
        """Whether there is a specific force."""
        return bool(np.isfinite(self.accel).all())

    @property
    def gaps_s(self) -> list[tuple[float, float]]:
        """Start and end of each pause longer than 50 ms."""
        at = np.flatnonzero(np.diff(self.times_s) > MAX_GAP_S)
        return [(float(self.times_s[i]), float(self.times_s[i + 1])) for i in at]

    def shifted(self, seconds: float) -> ImuStream:
        """Return the stream with ``seconds`` added to all times."""
        return replace(self, times_s=self.times_s + seconds)

    def rotated(self, rotation: Array, *, axes_are_camera: bool) -> ImuStream:
        """Return the stream in other axes, ``rotation`` [3, 3] mapping old components to new ones."""
        return replace(
            self, gyro=self.gyro @ rotation.T, accel=self.accel @ rotation.T, axes_are_camera=axes_are_camera
        )

    def between(self, start_s: float, end_s: float) -> ImuStream:
        """Return the samples from the last before ``start_s`` to the first after ``end_s``.

        Raises:
            ImuError: The recording does not reach into that time.
        """
        first = max(int(np.searchsorted(self.times_s, start_s, side="right")) - 1, 0)
        last = min(int(np.searchsorted(self.times_s, end_s, side="left")) + 1, len(self.times_s))
        if last - first < 2 or self.times_s[0] >= end_s or self.times_s[-1] <= start_s:
            raise ImuError(
                f"the inertial recording covers {self.times_s[0]:.2f} to {self.times_s[-1]:.2f} s, "
                f"nothing of {start_s:.2f} to {end_s:.2f} s"
            )
        part = slice(first, last)
        return replace(self, times_s=self.times_s[part], gyro=self.gyro[part], accel=self.accel[part])

    def mean_gyro(self, starts_s: Array, ends_s: Array) -> Array:
        """Return the mean angular velocity [n, 3] over intervals, the integral of the samples' polygon; NaN outside."""
        steps = np.diff(self.times_s)[:, None]
        whole = np.vstack([np.zeros(3), np.cumsum((self.gyro[1:] + self.gyro[:-1]) / 2 * steps, axis=0)])
        turned = _integral(self.times_s, self.gyro, whole, ends_s) - _integral(self.times_s, self.gyro, whole, starts_s)
        return np.asarray(turned / (np.asarray(ends_s) - np.asarray(starts_s))[:, None])


def _integral(times: Array, values: Array, whole: Array, at: Array) -> Array:
    at = np.asarray(at, np.float64)
    i = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
    rest = (at - times[i])[:, None]
    slope = (values[i + 1] - values[i]) / (times[i + 1] - times[i])[:, None]
    integral = whole[i] + values[i] * rest + slope * rest**2 / 2
    integral[(at < times[0] - 1e-9) | (at > times[-1] + 1e-9)] = np.nan
    return integral
