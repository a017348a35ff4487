"""Rotations: the exponential map, its inverse and its Jacobian, and quaternions whose order is always named."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from planish_egovid.kinematics.errors import PoseError

Array = NDArray[np.float64]


def hat(vector: Array) -> Array:
    """Return the skew matrices [..., 3, 3] of vectors [..., 3], so that ``hat(a) @ b`` is the cross product."""
    v = np.asarray(vector, np.float64)
    zero = np.zeros(v.shape[:-1])
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    return np.stack(
        [np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)],
        -2,
    )


def cross(a: Array, b: Array) -> Array:
    """Return the cross products [n, 3] of rows; several times as fast as ``np.cross``."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


def exp(rotation_vector: Array) -> Array:
    """Return rotation matrices [..., 3, 3] of rotation vectors [..., 3] in radians."""
    v = np.asarray(rotation_vector, np.float64)
    matrices: Array = Rotation.from_rotvec(v.reshape(-1, 3)).as_matrix().reshape(*v.shape[:-1], 3, 3)
    return matrices


def log(matrix: Array) -> Array:
    """Return rotation vectors [..., 3] in radians, no longer than pi, of rotation matrices [..., 3, 3]."""
    m = np.asarray(matrix, np.float64)
    vectors: Array = Rotation.from_matrix(m.reshape(-1, 3, 3)).as_rotvec().reshape(*m.shape[:-2], 3)
    return vectors


def angle_deg(matrix: Array) -> Array:
    """Return the rotation angles [...] in degrees of rotation matrices [..., 3, 3]."""
    angles: Array = np.degrees(np.linalg.norm(log(matrix), axis=-1))
    return angles


def right_jacobian(rotation_vector: Array) -> Array:
    """Return J [..., 3, 3] with ``exp(v + d) = exp(v) exp(J d)`` to first order (Chirikjian, vol. 2, eq. 10.86)."""
    v = np.asarray(rotation_vector, np.float64)
    theta2 = np.sum(v * v, axis=-1)[..., None, None]
    theta = np.sqrt(theta2)
    small = theta < 1e-4
    safe = np.where(small, 1.0, theta)
    a = np.where(small, 0.5 - theta2 / 24, (1 - np.cos(safe)) / safe**2)
    b = np.where(small, 1 / 6 - theta2 / 120, (safe - np.sin(safe)) / safe**3)
    k = hat(v)
    return np.asarray(np.eye(3) - a * k + b * (k @ k), np.float64)


def right_jacobian_inverse(rotation_vector: Array) -> Array:
    """Return the inverse of :func:`right_jacobian`: ``log(exp(v) exp(d)) = v + J^-1 d`` to first order."""
    return np.asarray(np.linalg.inv(right_jacobian(rotation_vector)), np.float64)


def to_xyzw(matrix: Array) -> Array:
    """Return quaternions [..., 4], scalar last, of rotation matrices [..., 3, 3]."""
    m = np.asarray(matrix, np.float64)
    quaternions: Array = Rotation.from_matrix(m.reshape(-1, 3, 3)).as_quat().reshape(*m.shape[:-2], 4)
    return quaternions


def from_xyzw(quaternion: Array) -> Array:
    """Return rotation matrices [..., 3, 3] of quaternions [..., 4], scalar last; q and -q give the same matrix.

    Raises:
        PoseError: A quaternion is zero or not finite. Its length is otherwise normalised.
    """
    q = np.asarray(quaternion, np.float64)
    length = np.linalg.norm(q, axis=-1)
    if not np.all(np.isfinite(length)) or np.any(length < 1e-9):
        index = int(np.argmax(~(np.isfinite(length) & (length >= 1e-9))))
        raise PoseError(
            f"quaternion {index} is {q.reshape(-1, 4)[index].tolist()}, which is no rotation; drop that pose"
        )
    matrices: Array = Rotation.from_quat(q.reshape(-1, 4)).as_matrix().reshape(*q.shape[:-1], 3, 3)
    return matrices


def to_wxyz(matrix: Array) -> Array:
    """Return quaternions [..., 4], scalar first, of rotation matrices [..., 3, 3]."""
    return np.roll(to_xyzw(matrix), 1, axis=-1)


def from_wxyz(quaternion: Array) -> Array:
    """Return rotation matrices [..., 3, 3] of quaternions [..., 4], scalar first. Raises like :func:`from_xyzw`."""
    return from_xyzw(np.roll(np.asarray(quaternion, np.float64), -1, axis=-1))


def same_signs(quaternions: Array) -> Array:
    """Return quaternions [n, 4] (either order) with signs chosen so that neighbours lie on the same side."""
    q = np.array(quaternions, np.float64)
    flips = np.where(np.sum(q[1:] * q[:-1], axis=-1) < 0, -1.0, 1.0)
    q[1:] *= np.cumprod(flips)[:, None]
    return q


def nearest_rotation(matrix: Array) -> Array:
    """Return the rotation matrices nearest to matrices [..., 3, 3] in the Frobenius norm."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    sign = np.ones(u.shape[:-1])
    sign[..., 2] = np.linalg.det(u @ vt)
    projected: Array = (u * sign[..., None, :]) @ vt
    return projected
