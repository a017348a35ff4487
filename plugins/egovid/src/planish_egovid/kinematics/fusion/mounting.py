"""How an inertial sensor is mounted on the camera, from the angular velocities that both see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mounting:
    """The rotation from the sensor's axes to the camera's.

    Attributes:
        rotation: float64 [3, 3]; ``camera = rotation @ sensor``.
        residual_rad_s: Root mean square of what is left of the camera's angular velocity.
        explained: Share of the camera's squared angular velocity that is explained.
        is_determined: Whether the motion tells all three axes, or, if not, whether one of the 24 mountings along the
            axes explains it clearly better than the others.
    """

    rotation: Array
    residual_rad_s: float
    explained: float
    is_determined: bool


def estimate_mounting(camera: Array, sensor: Array) -> Mounting:
    """Return the rotation that best takes a sensor's angular velocities to the camera's.

    Wahba's problem, solved by SVD (Kabsch 1976, Markley 1988), with one pass that drops the tenth that fits worst.
    Turning about a single axis leaves the rotation about it open; then the best of the 24 mountings along the axes is
    taken.

    Args:
        camera: float64 [n, 3], rad/s in camera axes.
        sensor: float64 [n, 3], rad/s over the same intervals in the sensor's axes; rows with NaN are left out.
    """
    known = np.isfinite(camera).all(axis=1) & np.isfinite(sensor).all(axis=1)
    a, b = camera[known], sensor[known]
    if len(a) < 3:
        return Mounting(np.eye(3), float("nan"), 0.0, False)
    rotation, spread = _wahba(a, b)
    error = np.linalg.norm(a - b @ rotation.T, axis=1)
    keep = error <= np.quantile(error, 0.9)
    if np.count_nonzero(keep) >= 3:
        rotation, spread = _wahba(a[keep], b[keep])
    # Two axes fix a rotation; the second one must stand out from the noise.
    determined = bool(spread[1] > 0.05 * spread[0])
    if not determined:
        costs = np.array([float(((a - b @ r.T) ** 2).sum()) for r in _along_axes()])
        order = np.argsort(costs, kind="stable")
        rotation = _along_axes()[int(order[0])]
        determined = bool(costs[order[1]] > 1.5 * costs[order[0]])
    left = float(((a - b @ rotation.T) ** 2).sum())
    total = float((a**2).sum())
    return Mounting(rotation, float(np.sqrt(left / len(a))), 1 - left / total if total > 0 else 0.0, determined)


def _wahba(a: Array, b: Array) -> tuple[Array, Array]:
    u, s, vt = np.linalg.svd(a.T @ b)
    rotation: Array = (u * [1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return rotation, s


@lru_cache(maxsize=1)
def _along_axes() -> tuple[Array, ...]:
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    return tuple(found)
