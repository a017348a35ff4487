"""Trajectory: camera poses over time that know which way they map, and whether their lengths are metres."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from planish_egovid.kinematics.errors import PoseError

Array = NDArray[np.float64]


class PoseConvention(Enum):
    """Which way a 4x4 pose maps points. Camera axes are OpenCV's in both: x right, y down, z forward."""

    CAMERA_TO_WORLD = "c2w"
    WORLD_TO_CAMERA = "w2c"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Camera poses over time.

    Attributes:
        matrices: float64 [F, 4, 4]. Where only rotations are known, the translations are NaN, never 0.
        times_s: float64 [F], seconds from the clip's start, strictly rising.
        convention: Which way the matrices map.
        is_metric: Whether lengths are metres. What comes from pictures alone never is.

    Raises:
        PoseError: A wrong shape, times that do not rise, or a rotation part that is no rotation to within 1e-3.
    """

    matrices: Array
    times_s: Array
    convention: PoseConvention = PoseConvention.CAMERA_TO_WORLD
    is_metric: bool = False

    def __post_init__(self) -> None:
        """Take copies as float64 and check them."""
        object.__setattr__(self, "matrices", np.array(self.matrices, np.float64))
        object.__setattr__(self, "times_s", np.array(self.times_s, np.float64))
        check_poses(self.matrices)
        if self.times_s.shape != (len(self.matrices),):
            raise PoseError(
                f"times_s has shape {self.times_s.shape}; {len(self.matrices)} poses need {(len(self.matrices),)}"
            )
        if not np.all(np.isfinite(self.times_s)) or np.any(np.diff(self.times_s) <= 0):
            raise PoseError("times_s must be finite and rise strictly; sort the poses by time and drop repeats")

    @classmethod
    def of_rotations(
        cls, rotations: Array, times_s: Array, convention: PoseConvention = PoseConvention.CAMERA_TO_WORLD
    ) -> Trajectory:
        """Return a trajectory of rotations [F, 3, 3] whose translations are unknown (NaN)."""
        return cls(compose(rotations, np.full((len(rotations), 3), np.nan)), times_s, convention)

    def __len__(self) -> int:
        """Return the number of poses."""
        return len(self.matrices)

    @property
    def rotations(self) -> Array:
        """Rotation parts, [F, 3, 3]."""
        return self.matrices[:, :3, :3]

    @property
    def translations(self) -> Array:
        """Translation parts, [F, 3]: camera centres if the convention is camera-to-world."""
        return self.matrices[:, :3, 3]

    @property
    def has_translations(self) -> bool:
        """Whether all translations are known."""
        return bool(np.all(np.isfinite(self.translations)))

    def to(self, convention: PoseConvention) -> Trajectory:
        """Return the same poses under a convention."""
        if convention is self.convention:
            return self
        return replace(self, matrices=inverse(self.matrices), convention=convention)

    def rebased(self) -> Trajectory:
        """Return the poses relative to the first one, which becomes the identity."""
        c2w = self.to(PoseConvention.CAMERA_TO_WORLD)
        moved = product(inverse(c2w.matrices[:1]), c2w.matrices)
        moved[0, :3, :3] = np.eye(3)
        return replace(c2w, matrices=moved).to(self.convention)

    def transformed(self, rigid: Array) -> Trajectory:
        """Return the poses in another world frame, ``rigid`` [4, 4] mapping old world points to new ones."""
        c2w = self.to(PoseConvention.CAMERA_TO_WORLD)
        return replace(c2w, matrices=product(np.asarray(rigid, np.float64), c2w.matrices)).to(self.convention)

    def scaled(self, factor: float, *, is_metric: bool) -> Trajectory:
        """Return the poses with all lengths multiplied by ``factor`` > 0."""
        if not (np.isfinite(factor) and factor > 0):
            raise PoseError(f"scale is {factor}; it must be a positive number")
        matrices = self.matrices.copy()
        matrices[:, :3, 3] *= factor
        return replace(self, matrices=matrices, is_metric=is_metric)

    def relative(self, step: int = 1) -> Array:
        """Return the motions [F - step, 4, 4] that map points of camera i to camera i + step."""
        w2c = self.to(PoseConvention.WORLD_TO_CAMERA).matrices
        return product(w2c[step:], inverse(w2c[:-step]))

    def path_length(self) -> float | None:
        """Return the length of the camera centre's path in the trajectory's unit, or None where it is unknown."""
        if not self.has_translations:
            return None
        centres = self.to(PoseConvention.CAMERA_TO_WORLD).translations
        return float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())


def compose(rotations: Array, translations: Array) -> Array:
    """Return 4x4 matrices [..., 4, 4] of rotations [..., 3, 3] and translations [..., 3]."""
    r = np.asarray(rotations, np.float64)
    matrices = np.zeros((*r.shape[:-2], 4, 4))
    matrices[..., :3, :3] = r
    matrices[..., :3, 3] = translations
    matrices[..., 3, 3] = 1
    return matrices


def inverse(matrices: Array) -> Array:
    """Return the inverses of rigid 4x4 matrices [..., 4, 4]; unknown (NaN) translations stay unknown."""
    m = np.asarray(matrices, np.float64)
    transposed = np.swapaxes(m[..., :3, :3], -1, -2)
    return compose(transposed, -np.einsum("...ij,...j->...i", transposed, m[..., :3, 3]))


def product(a: Array, b: Array) -> Array:
    """Return the products of rigid 4x4 matrices; an unknown (NaN) translation leaves the rotation known."""
    turned = np.einsum("...ij,...j->...i", a[..., :3, :3], b[..., :3, 3])
    return compose(a[..., :3, :3] @ b[..., :3, :3], turned + a[..., :3, 3])


def check_poses(matrices: Array, *, frames: int | None = None) -> None:
    """Raise if these are not rigid poses.

    Args:
        matrices: What should be [F, 4, 4].
        frames: How many poses there should be; None for any number.

    Raises:
        PoseError: A wrong shape or number, a last row that is not (0, 0, 0, 1), a rotation part with a determinant
            or a product with its transpose that is off by more than 1e-3.
    """
    m = np.asarray(matrices)
    if m.ndim != 3 or m.shape[1:] != (4, 4) or len(m) == 0:
        raise PoseError(f"poses have shape {list(m.shape)}; they must be [F, 4, 4] with F >= 1")
    if frames is not None and len(m) != frames:
        raise PoseError(f"there are {len(m)} poses for {frames} frames; each frame needs one")
    rotations = m[:, :3, :3].astype(np.float64)
    bad = ~np.isfinite(rotations).all(axis=(1, 2))
    if bad.any():
        raise PoseError(f"the rotation of pose {int(np.argmax(bad))} is not finite; drop that pose")
    if not np.array_equal(m[:, 3], np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(m), 4))):
        raise PoseError("the last row of each pose must be (0, 0, 0, 1); are the matrices transposed?")
    determinants = np.linalg.det(rotations)
    off = np.abs(determinants - 1) > 1e-3
    if off.any():
        index = int(np.argmax(off))
        raise PoseError(
            f"the rotation of pose {index} has determinant {determinants[index]:.4f} instead of 1 (to within 1e-3); "
            "scale belongs in the translation, and a mirrored axis is no rotation"
        )
    skew = np.abs(rotations @ np.swapaxes(rotations, 1, 2) - np.eye(3)).max(axis=(1, 2)) > 1e-3
    if skew.any():
        raise PoseError(f"the rotation of pose {int(np.argmax(skew))} is not orthogonal to within 1e-3")
