"""Intrinsics: from pixels to rays and back, for pinhole, OpenCV-distorted and fisheye lenses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from planish.interfaces import Clip

from planish_egovid.kinematics.errors import PoseError

Array = NDArray[np.float64]
Lens = Literal["pinhole", "opencv", "fisheye"]
LENSES: tuple[Lens, ...] = ("pinhole", "opencv", "fisheye")
MAX_OFF_AXIS = np.radians(75)
"""Rays further than this off the axis are not used: their normalised coordinates blow up."""
MAX_ROUND_TRIP_PX = 0.01
"""How near to its pixel a ray must project."""


@dataclass(frozen=True)
class Intrinsics:
    """A camera's lens.

    Attributes:
        fx: Focal length in pixels, along x.
        fy: The same along y.
        cx: Principal point in pixels; the centre of the top left pixel is 0.
        cy: The same along y.
        width: Pixels of the pictures that this describes.
        height: The same along y.
        lens: ``"pinhole"``; ``"opencv"``: with ``distortion`` k1, k2, p1, p2[, k3[, k4, k5, k6]]; ``"fisheye"``:
            equidistant (Kannala and Brandt), with ``distortion`` k1..k4 or none.
        distortion: Coefficients.
        source: Where this comes from, such as ``"assumed fov 90 pinhole"``.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    lens: Lens = "pinhole"
    distortion: tuple[float, ...] = ()
    source: str = "given"

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            PoseError: A focal length or size that is not positive, or coefficients that the lens does not have.
        """
        for name in ("fx", "fy", "width", "height"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise PoseError(f"intrinsics: {name} is {value}; it must be a positive number of pixels")
        counts = {"pinhole": (0,), "opencv": (4, 5, 8), "fisheye": (0, 4)}
        if self.lens not in counts:
            raise PoseError(f"intrinsics: lens is {self.lens!r}; known lenses: {', '.join(LENSES)}")
        if len(self.distortion) not in counts[self.lens]:
            raise PoseError(
                f"intrinsics: {len(self.distortion)} distortion coefficients for a {self.lens} lens; "
                f"it has {' or '.join(map(str, counts[self.lens]))}"
            )

    @classmethod
    def of_fov(cls, horizontal_deg: float, width: int, height: int, lens: Lens = "pinhole") -> Intrinsics:
        """Return an undistorted lens that sees ``horizontal_deg`` from the left to the right edge."""
        limit = 175 if lens == "pinhole" else 220
        if not 0 < horizontal_deg < limit:
            raise PoseError(f"field of view is {horizontal_deg} degrees; a {lens} lens has more than 0, below {limit}")
        half = np.radians(horizontal_deg) / 2
        focal = float(width / 2 / (np.tan(half) if lens == "pinhole" else half))
        source = f"assumed fov {horizontal_deg:g} {lens}"
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height, lens, (), source)

    def resized(self, width: int, height: int) -> Intrinsics:
        """Return the intrinsics of the same pictures resized to ``width`` x ``height`` pixels."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
            width=width,
            height=height,
        )

    @property
    def matrix(self) -> Array:
        """The 3x3 camera matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @property
    def focal(self) -> float:
        """Geometric mean of the focal lengths, in pixels a radian at the axis."""
        return float(np.sqrt(self.fx * self.fy))

    def rays(self, points: Array) -> Array:
        """Return unit rays [n, 3] of pixels [n, 2]; NaN where the lens has none, or over 75 degrees off the axis."""
        p = np.asarray(points, np.float64).reshape(-1, 2)
        if len(p) == 0:
            return np.zeros((0, 3))
        plane = (p - [self.cx, self.cy]) / [self.fx, self.fy]
        if self.lens == "fisheye":
            angle_seen = np.linalg.norm(plane, axis=1)
            angle = _undistorted_angle(angle_seen, self.distortion)
            side = np.divide(plane, angle_seen[:, None], out=np.zeros_like(plane), where=angle_seen[:, None] > 0)
            rays = np.concatenate([side * np.sin(angle)[:, None], np.cos(angle)[:, None]], axis=1)
        else:
            if self.lens == "opencv":
                criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
                undistort = getattr(cv2, "undistortPointsIter", None)
                coefficients = np.array(self.distortion, np.float64)
                if undistort is not None:
                    plane = undistort(p[:, None], self.matrix, coefficients, np.eye(3), np.eye(3), criteria)[:, 0]
                else:
                    plane = cv2.undistortPoints(p[:, None], self.matrix, coefficients, criteria=criteria)[:, 0]
            rays = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
            rays /= np.linalg.norm(rays, axis=1, keepdims=True)
            angle = np.arccos(np.clip(rays[:, 2], -1, 1))
        rays[~(angle < MAX_OFF_AXIS)] = np.nan
        if self.distortion:  # beyond where the polynomial turns around, no ray belongs to a pixel
            missed = np.abs(self.project(rays) - p).max(axis=1)
            rays[~(missed < MAX_ROUND_TRIP_PX)] = np.nan
        return rays

    def pixels_per_radian(self, rays: Array) -> Array:
        """Return how many pixels an angle of one radian spans at unit rays [n, 3]; the mean of both directions, [n]."""
        cosine = np.clip(rays[:, 2], -1, 1)
        if self.lens == "fisheye":
            angle = np.arccos(cosine)
            return np.asarray(self.focal / np.sqrt(np.sinc(np.minimum(angle, 0.9 * np.pi) / np.pi)), np.float64)
        return np.asarray(self.focal / np.maximum(cosine, 0.1) ** 1.5, np.float64)

    def project(self, points: Array) -> Array:
        """Return pixels [n, 2] of points [n, 3] in camera axes; NaN for points behind a lens that is no fisheye."""
        x = np.asarray(points, np.float64).reshape(-1, 3)
        if self.lens == "fisheye":
            side = np.linalg.norm(x[:, :2], axis=1)
            angle = np.arctan2(side, x[:, 2])
            seen = _distorted_angle(angle, self.distortion)
            ratio = np.divide(seen, side, out=np.ones_like(side), where=side > 1e-12)
            plane = x[:, :2] * ratio[:, None]
            return np.asarray(plane * [self.fx, self.fy] + [self.cx, self.cy], np.float64)
        ahead = x[:, 2] > 1e-9
        plane = np.full((len(x), 2), np.nan)
        plane[ahead] = x[ahead, :2] / x[ahead, 2:]
        if self.lens == "opencv" and ahead.any():
            unit = np.concatenate([plane[ahead], np.ones((int(ahead.sum()), 1))], axis=1)
            pixels, _ = cv2.projectPoints(
                unit, np.zeros(3), np.zeros(3), self.matrix, np.array(self.distortion, np.float64)
            )
            projected = np.full((len(x), 2), np.nan)
            projected[ahead] = pixels[:, 0]
            return projected
        return np.asarray(plane * [self.fx, self.fy] + [self.cx, self.cy], np.float64)


def _distorted_angle(angle: Array, coefficients: tuple[float, ...]) -> Array:
    powers = angle[..., None] ** np.array([3, 5, 7, 9])[: len(coefficients)]
    return angle + powers @ np.array(coefficients) if coefficients else angle


def _undistorted_angle(seen: Array, coefficients: tuple[float, ...]) -> Array:
    if not coefficients:
        return seen
    angle = seen.copy()
    degree = np.array([2, 4, 6, 8])
    for _ in range(20):  # Newton; the polynomial rises wherever a lens is calibrated
        slope = 1 + (angle[..., None] ** degree) @ (np.array(coefficients) * (degree + 1))
        angle = angle - (_distorted_angle(angle, coefficients) - seen) / np.where(np.abs(slope) < 1e-6, 1.0, slope)
    return angle


def intrinsics_of(
    clip: Clip, width: int, height: int, *, assume_fov_deg: float | None = None, assume_lens: Lens = "pinhole"
) -> Intrinsics:
    """Return a clip's intrinsics for pictures of ``width`` x ``height`` pixels.

    They come from ``clip.extra["intrinsics"]``: the path of a ``.npy`` file with a 3x3 matrix (the released
    ``intri.npy``), a 3x3 nested list, or a mapping with ``fx``, ``fy``, ``cx``, ``cy`` and optionally ``lens``,
    ``distortion``, ``width`` and ``height``; of the upright video's own size unless ``width`` and ``height``, or
    ``clip.extra["intrinsics_size"]`` = [width, height], say otherwise. Without them, from ``assume_fov_deg``.

    Raises:
        PoseError: There are none and none may be assumed, they cannot be read, or they belong to another picture size.
    """
    given = clip.extra.get("intrinsics")
    if given is None or (isinstance(given, float) and np.isnan(given)):
        if assume_fov_deg is None:
            raise PoseError(
                f"clip {clip.id!r} has no intrinsics, and without them there is no pose; give extra.intrinsics (the "
                "path of intri.npy, or fx, fy, cx, cy), or set assume_fov_deg to the camera's horizontal field of view"
            )
        return Intrinsics.of_fov(assume_fov_deg, width, height, assume_lens)
    size = clip.extra.get("intrinsics_size") or (width, height)
    if isinstance(given, Mapping):
        found = _of_mapping(given, clip.id, size)
    else:
        found = _of_matrix(given, clip.id, size)
    aspect = (found.width / found.height) / (width / height)
    if abs(aspect - 1) > 0.05 or abs(2 * found.cx / found.width - 1) > 0.35:
        raise PoseError(
            f"clip {clip.id!r}: intrinsics with the principal point at ({found.cx:.0f}, {found.cy:.0f}) do not fit a "
            f"picture of {found.width}x{found.height} in a video of {width}x{height}; give extra.intrinsics_size = "
            "[width, height] of the pictures that they were made for"
        )
    return found.resized(width, height)


def _of_mapping(given: Mapping[str, Any], clip_id: str, size: Any) -> Intrinsics:
    known = {"fx", "fy", "cx", "cy", "width", "height", "lens", "distortion"}
    unknown = sorted(set(given) - known)
    missing = sorted({"fx", "fy", "cx", "cy"} - set(given))
    if unknown or missing:
        what = f"unknown {', '.join(unknown)}" if unknown else f"no {', '.join(missing)}"
        raise PoseError(f"clip {clip_id!r}: extra.intrinsics has {what}; it takes {', '.join(sorted(known))}")
    return Intrinsics(
        fx=float(given["fx"]),
        fy=float(given["fy"]),
        cx=float(given["cx"]),
        cy=float(given["cy"]),
        width=int(given.get("width", size[0])),
        height=int(given.get("height", size[1])),
        lens=given.get("lens", "pinhole"),
        distortion=tuple(float(value) for value in given.get("distortion", ())),
    )


def _of_matrix(given: Any, clip_id: str, size: Any) -> Intrinsics:
    source = "given"
    if isinstance(given, (str, Path)):
        try:
            given, source = np.load(given, allow_pickle=False), Path(given).name
        except (OSError, ValueError) as error:
            raise PoseError(f"clip {clip_id!r}: extra.intrinsics {str(given)!r} cannot be read: {error}") from None
    matrix = np.asarray(given, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise PoseError(f"clip {clip_id!r}: intrinsics have shape {list(matrix.shape)}; a finite 3x3 matrix is needed")
    (fx, _, cx), (_, fy, cy), _ = matrix.tolist()
    return Intrinsics(fx, fy, cx, cy, int(size[0]), int(size[1]), source=source)
