"""A picture of the camera's motion for the report page: the path from above, and angles over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from planish.interfaces import Illustration

from planish_egovid.kinematics.estimate import KinematicEstimate
from planish_egovid.kinematics.imu.gravity import integrated_rotations
from planish_egovid.kinematics.pose.trajectory import PoseConvention, Trajectory

Array = NDArray[np.float64]

_PATH = (10, 26, 170, 170)  # x, y, width, height
_ANGLES = (236, 14, 372)
_ROW = 62
_COLOURS = {"picture": "#2563eb", "imu": "#ea580c", "fused": "#16a34a"}
_NAMES = ("yaw", "pitch", "roll")


def euler_deg(rotations: Array) -> Array:
    """Return yaw (to the right), pitch (up) and roll (clockwise) in degrees, [n, 3], of camera-to-world rotations.

    R = Ry(yaw) Rx(pitch) Rz(roll) in OpenCV axes; yaw and roll are continuous over time.
    """
    yaw = np.unwrap(np.arctan2(rotations[:, 0, 2], rotations[:, 2, 2]))
    pitch = np.arcsin(np.clip(-rotations[:, 1, 2], -1, 1))
    roll = np.unwrap(np.arctan2(rotations[:, 1, 0], rotations[:, 1, 1]))
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)), np.float64)


def trajectory_plot(estimate: KinematicEstimate) -> Illustration | None:
    """Return an SVG of the path seen from above and of the angles over time, or None if nothing is known."""
    curves: dict[str, tuple[Array, Array]] = {}
    visual = estimate.rotations
    if visual is not None:
        c2w = visual.to(PoseConvention.CAMERA_TO_WORLD).rebased()
        curves["picture"] = (c2w.times_s, euler_deg(c2w.rotations))
    recording = estimate.imu or (estimate.recording if visual is None else None)
    if recording is not None:
        end = float(visual.times_s[-1]) if visual is not None else float(recording.times_s[-1])
        part = recording.between(0.0, end) if recording.times_s[0] < end and recording.times_s[-1] > 0 else recording
        turned = integrated_rotations(part)
        start = int(np.argmin(np.abs(part.times_s)))
        keep = np.arange(start, len(turned), max(1, len(turned) // 200))
        curves["imu"] = (part.times_s[keep], euler_deg(turned[start].T @ turned[keep]))
    if not curves:
        return None
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 226" font-family="sans-serif" font-size="11" '
        'fill="currentColor">'
    ]
    parts += _path(estimate)
    parts += _angles(curves)
    x = _ANGLES[0]
    for name, label in (("picture", "from the picture"), ("imu", "from the inertial sensor")):
        if name in curves:
            parts.append(f'<path d="M{x} 216h18" stroke="{_COLOURS[name]}" stroke-width="2"/>')
            parts.append(f'<text x="{x + 22}" y="220">{label}</text>')
            x += 150
    parts.append("</svg>")
    caption = "Camera path from above where it is known, and the camera's angles against the first frame."
    return Illustration("Camera motion", "\n".join(parts).encode(), "image/svg+xml", caption)


def _path(estimate: KinematicEstimate) -> list[str]:
    left, top, width, height = _PATH
    frame = f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#888"/>'
    shown: Trajectory | None = estimate.fused.trajectory if estimate.fused is not None else estimate.trajectory
    if shown is None or not shown.has_translations:
        return [
            frame,
            f'<text x="{left + width / 2}" y="{top + height / 2}" text-anchor="middle">path unknown</text>',
            f'<text x="{left + width / 2}" y="{top + height / 2 + 16}" text-anchor="middle">(no scale)</text>',
        ]
    poses = shown.to(PoseConvention.CAMERA_TO_WORLD).rebased().matrices
    side, ahead = poses[:, 0, 3], poses[:, 2, 3]
    extent = max(float(np.ptp(side)), float(np.ptp(ahead)), 1e-9)
    scale = (width - 24) / extent
    middle_x, middle_y = float(side.max() + side.min()) / 2, float(ahead.max() + ahead.min()) / 2

    def at(x: float, z: float) -> str:
        return f"{left + width / 2 + (x - middle_x) * scale:.1f},{top + height / 2 - (z - middle_y) * scale:.1f}"

    colour = _COLOURS["fused" if estimate.fused is not None else "picture"]
    line = " ".join(at(float(x), float(z)) for x, z in zip(side, ahead, strict=True))
    unit = "m" if shown.is_metric else "units"
    ticks = []
    for i in range(0, len(poses), max(1, len(poses) // 10)):  # where the camera looks
        x, z = float(side[i] + 12 / scale * poses[i, 0, 2]), float(ahead[i] + 12 / scale * poses[i, 2, 2])
        ticks.append(f'<path d="M{at(float(side[i]), float(ahead[i]))} L{at(x, z)}" stroke="{colour}" opacity="0.5"/>')
    start_x, start_y = at(float(side[0]), float(ahead[0])).split(",")
    return [
        frame,
        f'<text x="{left}" y="{top - 8}">from above, {extent:.2g} {unit} across</text>',
        *ticks,
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>',
        f'<circle cx="{start_x}" cy="{start_y}" r="3" fill="{colour}"/>',
    ]


def _angles(curves: dict[str, tuple[Array, Array]]) -> list[str]:
    left, top, width = _ANGLES
    end = max(float(times[-1]) for times, _ in curves.values())
    start = min(float(times[0]) for times, _ in curves.values())
    bottom = top + len(_NAMES) * _ROW - 1
    parts = [
        f'<text x="{left}" y="{bottom}" font-size="9">{start:.1f} s</text>',
        f'<text x="{left + width}" y="{bottom}" font-size="9" text-anchor="end">{end:.1f} s</text>',
    ]
    for row, name in enumerate(_NAMES):
        y0, height = top + row * _ROW, _ROW - 12
        low = min(float(angles[:, row].min()) for _, angles in curves.values())
        high = max(float(angles[:, row].max()) for _, angles in curves.values())
        middle, span = (low + high) / 2, max(high - low, 1.0)
        parts.append(f'<rect x="{left}" y="{y0}" width="{width}" height="{height}" fill="none" stroke="#888"/>')
        parts.append(f'<text x="{left - 6}" y="{y0 + height / 2 + 4}" text-anchor="end">{name}</text>')
        parts.append(f'<text x="{left + width + 4}" y="{y0 + 9}" font-size="9">{middle + span / 2:.0f}°</text>')
        parts.append(f'<text x="{left + width + 4}" y="{y0 + height}" font-size="9">{middle - span / 2:.0f}°</text>')
        for source, (times, angles) in curves.items():
            points = _points(times, angles[:, row], (left, y0, width, height), (start, end), (middle, span))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{_COLOURS[source]}" stroke-width="1.4"/>')
    return parts


def _points(
    times: Array,
    values: Array,
    box: tuple[float, float, float, float],
    range_s: tuple[float, float],
    range_deg: tuple[float, float],
) -> str:
    left, top, width, height = box
    duration = max(range_s[1] - range_s[0], 1e-9)
    x = left + width * (times - range_s[0]) / duration
    y = top + height * (0.5 - 0.92 * (values - range_deg[0]) / range_deg[1])
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
