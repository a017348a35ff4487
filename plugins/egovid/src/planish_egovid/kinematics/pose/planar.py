"""The motion between two views of one plane, from a homography."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.pose.rotation import cross, log, nearest_rotation

Array = NDArray[np.float64]

SAMPLE = 400
"""Points that a homography is sought among."""
MAX_SAMPLES = 200
"""Of RANSAC. With the most outliers that a plane may have here, 200 find it with a probability above 0.99999."""
MIN_ON_PLANE = 0.5
"""Share of the points below which the scene is no plane."""


@dataclass(frozen=True, eq=False)
class PlanarMotion:
    """What a plane seen twice says about the camera's motion.

    Attributes:
        rotation: [3, 3], from the first camera's axes to the second's.
        translation: Unit direction [3], or None if two readings of the plane are equally possible.
        residuals_px: Transfer errors [n] in pixels.
        ambiguity: Rotation vector [3] from this reading to the other possible one; zero if there is one only.
    """

    rotation: Array
    translation: Array | None
    residuals_px: Array
    ambiguity: Array


def planar_motion(
    rays1: Array, rays2: Array, density: Array, threshold_px: float, *, near: Array
) -> PlanarMotion | None:
    """Return the motion that a homography between rays implies, or None if there is no homography.

    A plane allows two motions (Faugeras and Lustman 1988) unless the points that it must have in front tell them apart;
    of two that remain, the one whose rotation is nearer to ``near`` is returned, without a direction.

    Args:
        rays1: Unit rays [n, 3] of the first view.
        rays2: The same points in the second view.
        density: Pixels a radian, [n].
        threshold_px: Largest transfer error of an inlier.
        near: Rotation [3, 3] estimated otherwise.
    """
    plane1, plane2 = rays1[:, :2] / rays1[:, 2:], rays2[:, :2] / rays2[:, 2:]
    threshold = threshold_px / float(np.median(density))
    # Most scenes are no plane: a few samples tell, and points as dense as these are not all needed for it.
    some = slice(None, None, max(1, len(plane1) // SAMPLE))
    homography, mask = cv2.findHomography(plane1[some], plane2[some], cv2.RANSAC, threshold, maxIters=MAX_SAMPLES)
    if homography is None or mask.mean() < MIN_ON_PLANE:
        return None
    moved = rays1 @ homography.T
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    residuals = np.linalg.norm(cross(moved, rays2), axis=1) * density
    inlier = residuals < threshold_px
    if not inlier.any():
        return None
    _, rotations, translations, normals = cv2.decomposeHomographyMat(homography, np.eye(3))
    possible: list[tuple[float, Array, Array]] = []
    for rotation, translation, normal in zip(rotations, translations, normals, strict=True):
        in_front = float(np.mean((rays1[inlier] @ normal)[:, 0] > 0))
        if in_front > 0.98:
            possible.append((float(np.linalg.norm(log(rotation @ near.T))), nearest_rotation(rotation), translation))
    if not possible:
        return None
    possible.sort(key=lambda item: item[0])
    _, rotation, translation = possible[0]
    length = float(np.linalg.norm(translation))
    others = [other for _, other, _ in possible[1:] if np.linalg.norm(log(other @ rotation.T)) > 1e-3]
    direction = translation[:, 0] / length if length > 1e-6 and not others else None
    ambiguity = log(others[0] @ rotation.T) if others else np.zeros(3)
    return PlanarMotion(rotation, direction, residuals, ambiguity)
