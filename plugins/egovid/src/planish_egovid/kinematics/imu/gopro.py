"""Telemetry of GoPro cameras, read from the metadata track of the video file itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from planish_egovid.kinematics.errors import ImuError
from planish_egovid.kinematics.imu.klv import Entry, parse
from planish_egovid.kinematics.imu.stream import ImuStream
from planish_egovid.kinematics.imu.timestamps import clean_samples
from planish_egovid.kinematics.pose.rotation import from_wxyz, log
from planish_egovid.video.container import open_container

Array = NDArray[np.float64]
_log = logging.getLogger(__name__)

_CAMERA_FROM_GOPRO = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])
"""GoPro's X points left, Y backwards and Z up; ours are x right, y down, z forward."""
_WITHOUT_ORIN = "ZXY"
"""Channel order of the cameras that do not state one (HERO5)."""


@dataclass(frozen=True, eq=False)
class GoProTelemetry:
    """What a GoPro wrote about its motion; all in OpenCV camera axes, times on the video's clock.

    Attributes:
        model: Name of the camera, such as ``"GoPro Max"``.
        imu: Gyroscope and accelerometer.
        frame_times_s: float64 [m], of the orientations below; empty if the camera writes none.
        camera_orientation: float64 [m, 3, 3], world-to-camera (CORI), the first frame's attitude being the world.
        image_orientation: float64 [m, 3, 3], camera-to-image (IORI): how electronic stabilisation turned the picture.
        gravity_times_s: float64 [k].
        gravity: float64 [k, 3], unit direction of gravity in camera axes (GRAV).
    """

    model: str
    imu: ImuStream
    frame_times_s: Array
    camera_orientation: Array
    image_orientation: Array
    gravity_times_s: Array
    gravity: Array

    @property
    def is_stabilised(self) -> bool:
        """Whether the picture was turned against the camera by more than half a degree anywhere."""
        if len(self.image_orientation) == 0:
            return False
        return float(np.degrees(np.linalg.norm(log(self.image_orientation), axis=1)).max()) > 0.5

    def imu_of_image(self) -> ImuStream:
        """Return the recording in the axes of the stabilised picture: what a camera that took it would have felt.

        The angular velocity is that of the camera, turned into picture axes, plus that of the picture against the
        camera. Without stabilisation this is :attr:`imu`.
        """
        if not self.is_stabilised:
            return self.imu
        knots, turns = self.frame_times_s, self.image_orientation
        inside = np.clip(self.imu.times_s, knots[0], knots[-1])
        at_sample = Slerp(knots, Rotation.from_matrix(turns))(inside).as_matrix()
        rates = log(turns[:-1] @ np.swapaxes(turns[1:], 1, 2)) / np.diff(knots)[:, None]
        interval = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, len(rates) - 1)
        return replace(
            self.imu,
            gyro=np.einsum("nij,nj->ni", at_sample, self.imu.gyro) + rates[interval],
            accel=np.einsum("nij,nj->ni", at_sample, self.imu.accel),
            source=f"{self.imu.source}, stabilised axes",
        )


def find_gopro(path: str | Path) -> GoProTelemetry | None:
    """Return the telemetry of a file, or None if it has no GPMF track with a gyroscope.

    Raises:
        ImuError: The file cannot be opened, or its track is damaged.
    """
    try:
        with open_container(path) as container:
            payloads = _payloads(container)
    except (OSError, av.FFmpegError) as error:
        raise ImuError(f"{path}: cannot be opened: {error}") from None
    if not payloads:
        return None
    streams: dict[str, list[_Piece]] = {}
    model = "unknown GoPro"
    for start, end, data in payloads:
        try:
            devices = [entry for entry in parse(data) if entry.key == "DEVC"]
        except ImuError as error:
            raise ImuError(f"{path}: {error}") from None
        for device in devices[:1]:
            name = device.child("DVNM")
            model = name.text() if name else model
            for stream in device.walk("STRM"):
                for key in ("ACCL", "GYRO", "CORI", "IORI", "GRAV"):
                    found = stream.child(key)
                    if found is not None and found.repeat:
                        streams.setdefault(key, []).append(_Piece(start, end, _scaled(stream, found)))
    if "GYRO" not in streams:
        return None
    return _telemetry(model, streams, str(path))


@dataclass(frozen=True, eq=False)
class _Piece:
    start_s: float
    end_s: float
    values: Array


def _payloads(container: av.container.InputContainer) -> list[tuple[float, float, bytes]]:
    video = next(iter(container.streams.video), None)
    origin = float(video.start_time * video.time_base) if video and video.start_time else 0.0
    for stream in container.streams:
        if stream.type != "data" or "MET" not in stream.metadata.get("handler_name", ""):
            continue
        found = []
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None and bytes(packet)[:4] == b"DEVC":
                start = float(packet.pts * packet.time_base) - origin
                found.append((start, start + float((packet.duration or 0) * packet.time_base), bytes(packet)))
        if found:
            found.sort(key=lambda item: item[0])
            return found
    return []


def _scaled(stream: Entry, entry: Entry) -> Array:
    values = entry.numbers()
    scale = stream.child("SCAL")
    if scale is not None:
        divisor = scale.numbers().ravel()
        if not np.all(divisor != 0):
            raise ImuError(f"GPMF {entry.key}: SCAL is zero; the track is damaged")
        values = values / divisor
    if entry.key in ("ACCL", "GYRO"):
        order = stream.child("ORIN")
        values = _gopro_axes(values, order.text() if order else _WITHOUT_ORIN) @ _CAMERA_FROM_GOPRO.T
    return values


def _gopro_axes(values: Array, order: str) -> Array:
    """Return [n, 3] along X, Y, Z; ``order`` names the channels, lower case where the sign is reversed."""
    if sorted(order.upper()) != ["X", "Y", "Z"] or values.shape[1] != 3:
        raise ImuError(
            f"GPMF: channel order (ORIN) {order!r} with {values.shape[1]} channels; XYZ in any order is known"
        )
    channels = {letter.upper(): (i, 1.0 if letter.isupper() else -1.0) for i, letter in enumerate(order)}
    return np.stack([values[:, channels[axis][0]] * channels[axis][1] for axis in "XYZ"], axis=1)


def _joined(pieces: Iterable[_Piece]) -> tuple[Array, Array]:
    """Return times and values of a stream: the samples of a payload are spread evenly over its time."""
    times, values = [], []
    for piece in pieces:
        n = len(piece.values)
        times.append(piece.start_s + (piece.end_s - piece.start_s) * np.arange(n) / n)
        values.append(piece.values)
    return np.concatenate(times), np.concatenate(values)


def _telemetry(model: str, streams: dict[str, list[_Piece]], where: str) -> GoProTelemetry:
    gyro = clean_samples(*_joined(streams["GYRO"]), repair=True, where=f"{where} (GYRO)")
    repaired = gyro.is_repaired
    force = np.full_like(gyro.values, np.nan)
    if "ACCL" in streams:
        accel = clean_samples(*_joined(streams["ACCL"]), repair=True, where=f"{where} (ACCL)")
        repaired |= accel.is_repaired
        force = np.stack([np.interp(gyro.times_s, accel.times_s, accel.values[:, k]) for k in range(3)], axis=1)
    imu = ImuStream(gyro.times_s, gyro.values, force, f"gpmf {model}", repaired, axes_are_camera=True)
    none = np.zeros(0)
    times, camera, image = none, np.zeros((0, 3, 3)), np.zeros((0, 3, 3))
    if "CORI" in streams and "IORI" in streams:
        times, camera_q = _joined(streams["CORI"])
        image_q = _joined(streams["IORI"])[1]
        n = min(len(camera_q), len(image_q))
        times, camera, image = times[:n], from_wxyz(camera_q[:n]), from_wxyz(image_q[:n])
        if np.any(np.diff(times) <= 0):
            _log.warning("%s: times of CORI do not rise; stabilisation is ignored", where)
            times, camera, image = none, np.zeros((0, 3, 3)), np.zeros((0, 3, 3))
    gravity_times, gravity = _joined(streams["GRAV"]) if "GRAV" in streams else (none, np.zeros((0, 3)))
    return GoProTelemetry(model, imu, times, camera, image, gravity_times, gravity)
